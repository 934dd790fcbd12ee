package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// server is a running program under test with its own folder.
type server struct {
	addr   string
	cmd    *exec.Cmd
	dir    string
	exited chan struct{}
}

// commandFunc returns the command that serves on an address with its files in a folder.
type commandFunc = func(ctx context.Context, addr, dir string) *exec.Cmd

// launch starts a program on a free port of 127.0.0.1 and waits until it is ready.
func launch(ctx context.Context, run commandFunc) (*server, error) {
	addr, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the program has its own handle
	s := &server{addr: addr, dir: dir, cmd: run(ctx, addr, dir), exited: make(chan struct{})}
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = dir, log, log
	s.cmd.Cancel = func() error { return s.cmd.Process.Signal(syscall.SIGTERM) }
	s.cmd.WaitDelay = 20 * time.Second
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(s.exited)
		s.cmd.Wait() //nolint:errcheck // its log has the reason
	}()
	if err := s.waitReady(ctx); err != nil {
		err = fmt.Errorf("%s: %w; its log ends with %q", s.cmd.Path, err, s.logTail())
		s.stop()
		return nil, err
	}
	return s, nil
}

func freeAddress(ctx context.Context) (string, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

func (s *server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute) // the server checks its database first, which may have gigabytes
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.addr+"/readyz", http.NoBody)
		if err != nil {
			return err
		}
		request.Close = true
		if answer, err := http.DefaultClient.Do(request); err == nil {
			answer.Body.Close() //nolint:errcheck // only the status counts
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-s.exited:
			return errors.New("ended at once")
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *server) logTail() string {
	text, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-500):])
}

// stop ends the program and removes its files.
func (s *server) stop() {
	s.cmd.Cancel() //nolint:errcheck // it may have exited already
	select {
	case <-s.exited:
	case <-time.After(s.cmd.WaitDelay):
		s.cmd.Process.Kill() //nolint:errcheck // as above
		<-s.exited
	}
	os.RemoveAll(s.dir) //nolint:errcheck // a temporary folder
}

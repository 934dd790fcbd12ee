// Package localserver runs PostgreSQL and NATS as local processes on free ports of
// 127.0.0.1. A test can stop, kill and restart them. MissingPackages returns what is not
// installed.
package localserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

const (
	// waitTimeout is how long a server may take to start or stop.
	waitTimeout  = 30 * time.Second
	pollInterval = 10 * time.Millisecond
)

// MissingPackages returns the Debian packages that are needed and not installed.
func MissingPackages() (packages []string) {
	for _, row := range []struct{ program, owner string }{{"initdb", "postgresql"}, {"nats-server", "nats-server"}} {
		if lookPath(row.program) == "" {
			packages = append(packages, row.owner)
		}
	}
	return packages
}

// lookPath returns the path of a program, or "". It also searches parent Debian installs
// PostgreSQL.
func lookPath(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name) // the pattern is valid
	if len(found) == 0 {
		return ""
	}
	return slices.Max(found)
}

// process is a running server.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has exited
}

// startProcess starts a program as owner in dir, with its output in dir/log.
func startProcess(ctx context.Context, dir string, owner *syscall.Credential, program string, args ...string) (*process, error) {
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the process has its own
	p := &process{exec.CommandContext(ctx, lookPath(program), args...), make(chan struct{})}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner, Setpgid: true} // so that Ctrl-C reaches only the tests, which stop it
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, log, log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // its exit status does not matter
		close(p.exited)
	}()
	return p, nil
}

// waitReady waits until ready returns nil. If the server exits or time runs out, the error
// includes its log.
func (p *process) waitReady(ready func() error) error {
	err := waitUntil(p.exited, ready)
	if err == nil {
		return nil
	}
	text, _ := os.ReadFile(filepath.Join(p.cmd.Dir, "log")) // there may be none
	return fmt.Errorf("%s is not ready: %w\n%s", filepath.Base(p.cmd.Path), err, text[max(0, len(text)-4000):])
}

// waitUntil calls check until it returns nil. It returns the last error after waitTimeout
// or when ended is closed.
func waitUntil(ended <-chan struct{}, check func() error) error {
	ticker, timeout := time.NewTicker(pollInterval), time.After(waitTimeout)
	defer ticker.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ended:
			return err
		case <-timeout:
			return err
		}
	}
}

// stop sends a signal and waits until the server has exited.
func (p *process) stop(signal syscall.Signal) error {
	_ = p.cmd.Process.Signal(signal) // it may have exited
	select {
	case <-p.exited:
		return nil
	case <-time.After(waitTimeout):
		return fmt.Errorf("%s does not exit", filepath.Base(p.cmd.Path))
	}
}

// memoryDir is a file system in memory. It is used if minFreeMemory bytes are free.
const (
	memoryDir     = "/dev/shm"
	minFreeMemory = 4 << 30
)

// newServerDir creates a folder that belongs to owner, in memory if there is room: the
// database of each test has hundreds of files, and killing a process loses no more there
// than on a disk.
func newServerDir(owner *syscall.Credential) (string, error) {
	var stat syscall.Statfs_t
	parent := "" // the default folder for temporary files
	if err := syscall.Statfs(memoryDir, &stat); err == nil && stat.Bavail > minFreeMemory/uint64(stat.Bsize) {
		parent = memoryDir
	}
	dir, err := os.MkdirTemp(parent, "agentmarket-engine-")
	if err != nil || owner == nil {
		return dir, err
	}
	return dir, os.Chown(dir, int(owner.Uid), int(owner.Gid))
}

// unprivilegedUser returns the user that runs PostgreSQL if this process is root, and nil
// otherwise.
func unprivilegedUser() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil //nolint:nilnil // PostgreSQL runs as the current user
	}
	for _, name := range []string{"postgres", "nobody"} {
		account, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, _ := strconv.ParseUint(account.Uid, 10, 32)
		gid, _ := strconv.ParseUint(account.Gid, 10, 32)
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root: create a user named postgres")
}

// freePort returns a free port.
func freePort(ctx context.Context) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close() //nolint:errcheck // the port is all that was needed
	_, port, err := net.SplitHostPort(listener.Addr().String())
	return port, err
}

// Package localserver runs PostgreSQL and NATS as processes of one's own on free
// ports of 127.0.0.1, which can be stopped, killed and started again where they
// were. It installs nothing; MissingPackages says what is not there.
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
	// waitTimeout is how long a server may take to answer or to end.
	waitTimeout  = 30 * time.Second
	pollInterval = 10 * time.Millisecond
)

// MissingPackages are Debian's names of the packages that are wanted and not installed.
func MissingPackages() (packages []string) {
	for _, row := range []struct{ program, owner string }{{"initdb", "postgresql"}, {"nats-server", "nats-server"}} {
		if lookPath(row.program) == "" {
			packages = append(packages, row.owner)
		}
	}
	return packages
}

// lookPath finds a program, also where Debian keeps PostgreSQL's.
func lookPath(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name) // the pattern is right
	if len(found) == 0 {
		return ""
	}
	return slices.Max(found)
}

// process is a server that runs.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when it is gone
}

// startProcess runs a program as owner, in dir, and has it write into the file dir/log.
func startProcess(ctx context.Context, dir string, owner *syscall.Credential, program string, args ...string) (*process, error) {
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the process has its own
	p := &process{exec.CommandContext(ctx, lookPath(program), args...), make(chan struct{})}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner, Setpgid: true} // an interrupt is ours to pass on
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, log, log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // that it is over is all that matters
		close(p.exited)
	}()
	return p, nil
}

// waitReady waits until answers returns nil. A server that ends before is an error
// with what it wrote.
func (p *process) waitReady(answers func() error) error {
	err := waitUntil(p.exited, answers)
	if err == nil {
		return nil
	}
	text, _ := os.ReadFile(filepath.Join(p.cmd.Dir, "log")) // there may be none
	return fmt.Errorf("%s does not answer: %w\n%s", filepath.Base(p.cmd.Path), err, text[max(0, len(text)-4000):])
}

// waitUntil calls isSo until it returns nil. Its error is returned when that takes
// too long or ended is closed.
func waitUntil(ended <-chan struct{}, isSo func() error) error {
	ticker, late := time.NewTicker(pollInterval), time.After(waitTimeout)
	defer ticker.Stop()
	for {
		err := isSo()
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ended:
			return err
		case <-late:
			return err
		}
	}
}

// stop sends a signal and waits until the server is gone.
func (p *process) stop(signal syscall.Signal) error {
	_ = p.cmd.Process.Signal(signal) // it may be gone
	select {
	case <-p.exited:
		return nil
	case <-time.After(waitTimeout):
		return fmt.Errorf("%s does not end", filepath.Base(p.cmd.Path))
	}
}

// memoryDir is where Linux keeps files in memory, of which roomy bytes have to be free.
const (
	memoryDir     = "/dev/shm"
	minFreeMemory = 4 << 30
)

// newServerDir makes a folder that belongs to owner, in memory where there is room: each test
// has a database of hundreds of files, and a process that is killed loses no more there
// than on a disk.
func newServerDir(owner *syscall.Credential) (string, error) {
	var stat syscall.Statfs_t
	where := "" // the system's own
	if err := syscall.Statfs(memoryDir, &stat); err == nil && stat.Bavail > minFreeMemory/uint64(stat.Bsize) {
		where = memoryDir
	}
	dir, err := os.MkdirTemp(where, "agentmarket-engine-")
	if err != nil || owner == nil {
		return dir, err
	}
	return dir, os.Chown(dir, int(owner.Uid), int(owner.Gid))
}

// unprivilegedUser is whom PostgreSQL runs as when this is root; nil otherwise.
func unprivilegedUser() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil //nolint:nilnil // it runs as whoever this is
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
	return nil, errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")
}

// freePort is one that nobody listens on.
func freePort(ctx context.Context) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close() //nolint:errcheck // it was only to find the port
	_, port, err := net.SplitHostPort(listener.Addr().String())
	return port, err
}

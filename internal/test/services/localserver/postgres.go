package localserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// How a cluster is shut down.
const (
	// FastShutdown disconnects the clients and writes a checkpoint.
	FastShutdown = syscall.SIGINT
	// ImmediateShutdown simulates a crash: the next start recovers from the WAL.
	ImmediateShutdown = syscall.SIGQUIT
)

// Postgres is a PostgreSQL cluster: its data and its server. It trusts every local user.
type Postgres struct {
	port, dir string
	owner     *syscall.Credential
	settings  []string
	server    *process // nil while it is stopped
}

// NewPostgres creates a cluster with the superuser test. Start starts it. Settings have the
// form "fsync=off".
func NewPostgres(ctx context.Context, settings ...string) (*Postgres, error) {
	p, err := newPostgres(ctx, settings)
	if err != nil {
		return nil, err
	}
	err = p.runProgram(ctx, "initdb", "-D", p.dataDir(), "-U", "test", "-A", "trust", "-N", "-E", "UTF8", "--locale=C.UTF-8")
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(p.dir))
	}
	return p, nil
}

func newPostgres(ctx context.Context, settings []string) (*Postgres, error) {
	owner, err := unprivilegedUser()
	if err != nil {
		return nil, err
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := newServerDir(owner)
	return &Postgres{port: port, dir: dir, owner: owner, settings: settings}, err
}

func (p *Postgres) dataDir() string { return filepath.Join(p.dir, "data") }

// runProgram runs a PostgreSQL program until it exits.
func (p *Postgres) runProgram(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, lookPath(program), args...)
	cmd.Dir, cmd.SysProcAttr = p.dir, &syscall.SysProcAttr{Credential: p.owner}
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, text)
	}
	return nil
}

// HostPort returns the host and port of the server.
func (p *Postgres) HostPort() string { return "127.0.0.1:" + p.port }

// Address returns the URL of the database postgres, which is empty at first.
func (p *Postgres) Address() string { return "postgres://test@" + p.HostPort() + "/postgres" }

// Start starts the server and waits until it accepts connections, after crash recovery if
// necessary.
func (p *Postgres) Start(ctx context.Context) (err error) {
	args := []string{"-D", p.dataDir(), "-k", p.dir, "-h", "127.0.0.1", "-p", p.port, "-N", "300", "-c", "logging_collector=off"}
	for _, setting := range p.settings {
		args = append(args, "-c", setting)
	}
	p.server, err = startProcess(context.WithoutCancel(ctx), p.dir, p.owner, "postgres", args...)
	if err != nil {
		return err
	}
	return p.server.waitReady(func() error { return p.Exec(ctx, "SELECT 1") })
}

// Exec executes statements, each in its own transaction.
func (p *Postgres) Exec(ctx context.Context, statements ...string) error {
	conn, err := pgx.Connect(ctx, p.Address())
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // the statements are done
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// AddHBARule inserts a rule at the top of pg_hba.conf and reloads it.
func (p *Postgres) AddHBARule(ctx context.Context, rule string) error {
	path := filepath.Join(p.dataDir(), "pg_hba.conf")
	rules, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, append([]byte(rule+"\n"), rules...), 0o600)
	}
	if err != nil {
		return err
	}
	return p.Exec(ctx, "SELECT pg_reload_conf()")
}

// Stop shuts the server down with FastShutdown or ImmediateShutdown and waits until it has
// exited.
func (p *Postgres) Stop(how syscall.Signal) error {
	if p.server == nil {
		return nil
	}
	defer func() { p.server = nil }()
	return p.server.stop(how)
}

// Kill sends SIGKILL to the server and all its child processes, as if the machine failed,
// and waits until all have exited.
func (p *Postgres) Kill() error {
	if p.server == nil {
		return nil
	}
	defer func() { p.server = nil }()
	pid := p.server.cmd.Process.Pid
	_ = p.server.cmd.Process.Signal(syscall.SIGSTOP) // so that it starts no more children
	err := waitUntil(p.server.exited, func() error {
		if state, _ := readProcessStat(fmt.Sprintf("/proc/%d/stat", pid)); state == "T" {
			return nil
		}
		return errors.New("the server does not stop on SIGSTOP")
	})
	children, found := childProcesses(pid)
	for _, child := range children {
		_ = syscall.Kill(child, syscall.SIGKILL) // it may have exited
	}
	err = errors.Join(err, found, p.server.stop(syscall.SIGKILL))
	exited := func() error {
		for _, child := range children {
			if isAlive(child) {
				return fmt.Errorf("child process %d still runs", child)
			}
		}
		return nil
	}
	return errors.Join(err, waitUntil(nil, exited))
}

// childProcesses returns the children of a process. Each has its own session, so there is
// no process group to kill.
func childProcesses(parent int) (children []int, err error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range paths {
		state, ppid := readProcessStat(path)
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path))) // the pattern matches digits only
		if ppid == parent && state != "Z" {
			children = append(children, pid)
		}
	}
	return children, err
}

// isAlive reports whether a process is running.
func isAlive(pid int) bool {
	state, _ := readProcessStat(fmt.Sprintf("/proc/%d/stat", pid))
	return state != "" && state != "Z" && state != "X"
}

// readProcessStat reads the state and the parent of a process from "pid (name) state parent
// …". The state is "" if the process does not exist.
func readProcessStat(path string) (state string, parent int) {
	text, _ := os.ReadFile(path) // it may have exited
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 2 {
		return "", 0
	}
	parent, _ = strconv.Atoi(fields[1]) // it is a number
	return fields[0], parent
}

// Remove kills the server and removes the cluster.
func (p *Postgres) Remove() error { return errors.Join(p.Kill(), os.RemoveAll(p.dir)) }

// Standby creates and starts a standby with synchronous replication. The cluster must run.
// From then on its commits wait for the standby, even if the standby is stopped.
func (p *Postgres) Standby(ctx context.Context) (standby *Postgres, err error) {
	if standby, err = newPostgres(ctx, p.settings); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, standby.Remove())
		}
	}()
	err = standby.runProgram(ctx, "pg_basebackup", "-D", standby.dataDir(), "-c", "fast", "-X", "stream", "-R", "-C", "-S", "standby",
		"-d", "host=127.0.0.1 user=test application_name=standby port="+p.port)
	if err != nil {
		return nil, err
	}
	if err = standby.Start(ctx); err != nil {
		return nil, err
	}
	// Set after the base backup, so that the standby does not wait for one after Promote.
	err = p.Exec(ctx, "ALTER SYSTEM SET synchronous_standby_names = 'standby'", "SELECT pg_reload_conf()")
	if err != nil {
		return nil, err
	}
	return standby, p.server.waitReady(func() error {
		return p.Exec(ctx, "SELECT 1 / count(*) FROM pg_stat_replication WHERE sync_state = 'sync'")
	})
}

// Promote makes a standby the primary and waits until it is.
func (p *Postgres) Promote(ctx context.Context) error {
	return p.Exec(ctx, "SELECT 1 / pg_promote()::int")
}

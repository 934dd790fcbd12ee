// Command with runs a command while PostgreSQL and NATS serve on free ports of
// 127.0.0.1, named by AGENTMARKET_TEST_POSTGRES and AGENTMARKET_TEST_NATS. It
// starts them in a temporary folder and stops them at the end.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// packages are Debian's names of what is needed.
var packages = map[string]string{"postgres": "postgresql", "nats-server": "nats-server"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "engines:", err)
		code = 1
	}
	os.Exit(code)
}

func run(ctx context.Context, command []string) (code int, err error) {
	if len(command) == 0 {
		return 0, errors.New("no command was given: with go test ./…")
	}
	initdb, postgres, nats, err := find(ctx)
	if err != nil {
		if os.Getenv("CI") != "" {
			return 0, err
		}
		fmt.Fprintf(os.Stderr, "\n!! NOT TESTED ON POSTGRESQL AND NATS: %v\n!! Skipped: %s\n\n", err, strings.Join(command, " "))
		return 0, nil
	}
	dir, err := os.MkdirTemp("", "agentmarket-engines-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	owner, err := unprivileged()
	if err != nil {
		return 0, err
	}
	if owner != nil {
		if err := os.Chown(dir, int(owner.Uid), int(owner.Gid)); err != nil {
			return 0, err
		}
	}
	ports, err := freePorts(2)
	if err != nil {
		return 0, err
	}
	data := filepath.Join(dir, "data")
	as := func(cmd *exec.Cmd) *exec.Cmd {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: owner, Setpgid: true} // an interrupt is ours to pass on
		cmd.Dir = dir
		return cmd
	}
	if text, err := as(exec.CommandContext(ctx, initdb, "-D", data, "-U", "test", "-A", "trust", "-N", "-E", "UTF8", "--locale=C.UTF-8")).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("initdb: %w: %s", err, text)
	}
	// The data outlive no test: what a power cut would take is not worth waiting for.
	server := as(exec.Command(postgres, "-D", data, "-k", dir, "-h", "127.0.0.1", "-p", ports[0], "-N", "300", //nolint:noctx // ended below
		"-c", "fsync=off", "-c", "shared_buffers=256MB", "-c", "logging_collector=off", "-c", "log_min_messages=fatal"))
	bus := as(exec.Command(nats, "-a", "127.0.0.1", "-p", ports[1])) //nolint:noctx // ended below
	for _, engine := range []*exec.Cmd{server, bus} {
		if err := engine.Start(); err != nil {
			return 0, err
		}
		defer stopEngine(engine)
	}
	for _, port := range ports {
		if err := answers(ctx, "127.0.0.1:"+port); err != nil {
			return 0, err
		}
	}
	fmt.Fprintf(os.Stderr, "engines: PostgreSQL (%s) on port %s and NATS (%s) on port %s of 127.0.0.1\n", postgres, ports[0], nats, ports[1])
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(),
		"AGENTMARKET_TEST_POSTGRES=postgres://test@127.0.0.1:"+ports[0]+"/postgres", "AGENTMARKET_TEST_NATS=nats://127.0.0.1:"+ports[1])
	err = cmd.Run()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(failed.ExitCode(), 1), nil
	}
	return 0, err
}

// find looks for the programs and, as root on Debian, installs what is missing.
func find(ctx context.Context) (initdb, postgres, nats string, err error) {
	for range 2 {
		var missing []string
		look := func(name string) string {
			path := lookPath(name)
			if path == "" && packages[name] != "" {
				missing = append(missing, packages[name])
			}
			return path
		}
		initdb, postgres, nats = look("initdb"), look("postgres"), look("nats-server")
		if len(missing) == 0 {
			return initdb, postgres, nats, nil
		}
		err = fmt.Errorf("missing %s: install it (Debian: apt-get install %[1]s)", strings.Join(missing, " "))
		if _, found := exec.LookPath("apt-get"); found != nil || os.Getuid() != 0 {
			return "", "", "", err
		}
		fmt.Fprintln(os.Stderr, "engines: installing", strings.Join(missing, " "))
		for _, args := range [][]string{{"-q", "update"}, append([]string{"-q", "install", "-y", "--no-install-recommends"}, missing...)} {
			install := exec.CommandContext(ctx, "apt-get", args...)
			install.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
			if text, failed := install.CombinedOutput(); failed != nil {
				return "", "", "", errors.Join(err, fmt.Errorf("%w: %s", failed, text))
			}
		}
	}
	return "", "", "", err
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

// unprivileged is whom PostgreSQL runs as when this is root; nil otherwise.
func unprivileged() (*syscall.Credential, error) {
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

// freePorts returns ports that nobody listens on.
func freePorts(n int) ([]string, error) {
	var ports []string
	for range n {
		listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is at once
		if err != nil {
			return nil, err
		}
		defer listener.Close() //nolint:errcheck // it was only to find the port
		_, port, err := net.SplitHostPort(listener.Addr().String())
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}

// answers waits until someone accepts connections at an address.
func answers(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("nobody answers at %s: %w", address, err)
		}
	}
}

// stopEngine ends an engine at once: nothing of it is kept.
func stopEngine(engine *exec.Cmd) {
	_ = engine.Process.Signal(syscall.SIGINT)
	_ = engine.Wait()
}

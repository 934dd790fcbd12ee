// Command with runs a command while PostgreSQL and NATS serve on free ports of
// 127.0.0.1, named by AGENTMARKET_TEST_POSTGRES and AGENTMARKET_TEST_NATS. It
// starts them in a temporary folder and stops them at the end.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"agentmarket.space/server/internal/engines/private"
)

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
	if err := install(ctx); err != nil {
		if os.Getenv("CI") != "" {
			return 0, err
		}
		fmt.Fprintf(os.Stderr, "\n!! NOT TESTED ON POSTGRESQL AND NATS: %v\n!! Skipped: %s\n\n", err, strings.Join(command, " "))
		return 0, nil
	}
	// The data outlive no test: what a power cut would take is not worth waiting for.
	store, err := private.NewPostgres(ctx, "fsync=off", "shared_buffers=256MB", "log_min_messages=fatal")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, store.Stop(private.Fast), store.Remove()) }()
	bus, err := private.NewNATS(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, bus.Remove()) }()
	if err := errors.Join(store.Start(ctx), bus.Start(ctx)); err != nil {
		return 0, err
	}
	fmt.Fprintf(os.Stderr, "engines: PostgreSQL at %s and NATS at %s\n", store.Address(), bus.Address())
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(),
		"AGENTMARKET_TEST_POSTGRES="+store.Address(), "AGENTMARKET_TEST_NATS="+bus.Address())
	err = cmd.Run()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(failed.ExitCode(), 1), nil
	}
	return 0, err
}

// install installs what is missing, as root on Debian.
func install(ctx context.Context) error {
	missing := private.Missing()
	if len(missing) == 0 {
		return nil
	}
	err := fmt.Errorf("missing %s: install it (Debian: apt-get install %[1]s)", strings.Join(missing, " "))
	if _, found := exec.LookPath("apt-get"); found != nil || os.Getuid() != 0 {
		return err
	}
	fmt.Fprintln(os.Stderr, "engines: installing", strings.Join(missing, " "))
	for _, args := range [][]string{{"-q", "update"}, append([]string{"-q", "install", "-y", "--no-install-recommends"}, missing...)} {
		install := exec.CommandContext(ctx, "apt-get", args...)
		install.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if text, failed := install.CombinedOutput(); failed != nil {
			return errors.Join(err, fmt.Errorf("%w: %s", failed, text))
		}
	}
	if len(private.Missing()) > 0 {
		return err
	}
	return nil
}

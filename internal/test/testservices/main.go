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

	"agentmarket.space/server/internal/test/services/localserver"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testservices:", err)
		code = 1
	}
	os.Exit(code)
}

func run(ctx context.Context, command []string) (code int, err error) {
	if len(command) == 0 {
		return 0, errors.New("no command was given: with go test ./…")
	}
	env, stop, err := localserver.StartAll(ctx)
	if err != nil {
		if os.Getenv("CI") != "" || len(localserver.MissingPackages()) == 0 {
			return 0, err
		}
		fmt.Fprintf(os.Stderr, "\n!! NOT TESTED ON POSTGRESQL AND NATS: %v\n!! Skipped: %s\n\n", err, strings.Join(command, " "))
		return 0, nil
	}
	defer func() { err = errors.Join(err, stop()) }()
	fmt.Fprintln(os.Stderr, "testservices:", strings.Join(env, " "))
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), env...)
	err = cmd.Run()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(failed.ExitCode(), 1), nil
	}
	return 0, err
}

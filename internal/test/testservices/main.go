// Command testservices runs a command with PostgreSQL and NATS servers on free ports of
// 127.0.0.1. It starts them in a temporary folder and stops them when the command ends.
//
//	testservices [-share] COMMAND [ARGUMENT...]
//
// The command finds the servers in AGENTMARKET_TEST_POSTGRES and AGENTMARKET_TEST_NATS, so
// that its tests run on PostgreSQL. With -share its tests run on SQLite, and nested calls
// of testservices and trust use the same servers.
package main

import (
	"context"
	"errors"
	"flag"
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

func run(ctx context.Context, args []string) (code int, err error) {
	flags := flag.NewFlagSet("testservices", flag.ContinueOnError)
	share := flags.Bool("share", false, "pass the servers on to nested calls instead of to the tests of the command")
	if err := flags.Parse(args); err != nil {
		return 0, err
	}
	command := flags.Args()
	if len(command) == 0 {
		return 0, errors.New("give a command to run, for example go test")
	}
	servers, err := localserver.StartAll(ctx)
	if err != nil {
		if os.Getenv("CI") != "" || len(localserver.MissingPackages()) == 0 {
			return 0, err
		}
		fmt.Fprintf(os.Stderr, "\n!! NOT TESTED ON POSTGRESQL AND NATS: %v\n!! Skipped: %s\n\n", err, strings.Join(command, " "))
		return 0, nil
	}
	defer func() { err = errors.Join(err, servers.Stop()) }()
	env := servers.TestEnv()
	if *share {
		env = servers.SharedEnv()
	}
	fmt.Fprintln(os.Stderr, "testservices:", strings.Join(env, " "))
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), env...)
	err = cmd.Run()
	if exitErr, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(exitErr.ExitCode(), 1), nil
	}
	return 0, err
}

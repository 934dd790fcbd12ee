// Command agentmarket is a marketplace where AI agents find, hire and pay each
// other: one process with GraphQL, live subscriptions, REST and webhooks over
// one ledger.
package main

//go:generate go tool gqlgen generate
//go:generate go run ./internal/gen/gqlgen-sequential-lists graph/generated/generated.go
//go:generate go run ./internal/gen/configdocs docs/config.md

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"agentmarket.space/server/internal/cli"
	"agentmarket.space/server/internal/client"
)

func main() {
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it, to outlive its terminal
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	code := cli.Run(ctx, os.Args[1:], client.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}

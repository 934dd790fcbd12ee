// Command agentmarket is a self-hosted marketplace where AI agents find, hire and
// pay each other. A single process serves GraphQL with subscriptions, REST and
// webhooks on top of a ledger of credits.
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
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup ignores it
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	code := cli.Run(ctx, os.Args[1:], client.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}

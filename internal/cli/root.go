package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"

	"agentmarket.space/server/internal/client"
	"agentmarket.space/server/internal/dev"
)

// rootCommand is what the program can do.
type rootCommand struct {
	Serve      serveCommand      `cmd:"" default:"withargs" help:"Serve the marketplace (the default)."`
	Dev        dev.Command       `cmd:"" help:"Run a market for an afternoon, to develop against and to watch."`
	Config     configCommand     `cmd:"" help:"Print the settings as they hold, and where each comes from."`
	Migrate    migrateCommand    `cmd:"" help:"Bring a database to the schema of this version."`
	Verify     verifyCommand     `cmd:"" help:"Recompute the ledger; exit 1 when a law does not hold."`
	Copy       copyCommand       `cmd:"" help:"Move a market from SQLite into an empty PostgreSQL database."`
	Backup     backupCommand     `cmd:"" help:"Write a backup of a SQLite database, which a server may be at, to a new file."`
	Restore    restoreCommand    `cmd:"" help:"Put a backup where a server is to serve it from."`
	Rekey      rekeyCommand      `cmd:"" help:"Seal secrets anew with another secret key."`
	Health     client.Health     `cmd:"" help:"Ask a server whether it is ready; exit 1 when it is not."`
	Schema     schemaCommand     `cmd:"" help:"Print the GraphQL schema."`
	OpenAPI    openAPICommand    `cmd:"" name:"openapi" help:"Print the OpenAPI document of the REST routes."`
	Completion completionCommand `cmd:"" help:"Print what has a shell complete commands and flags."`
	Version    versionCommand    `cmd:"" help:"Print the version."`

	Register client.Register `cmd:"" group:"As an agent:" help:"Register an agent and get its API key."`
	Agents   client.Agents   `cmd:"" group:"As an agent:" help:"List agents."`
	Tasks    client.Tasks    `cmd:"" group:"As an agent:" help:"List, post, accept, complete and rate tasks."`
	Wallet   client.Wallet   `cmd:"" group:"As an agent:" help:"Show your credits and where they came from."`
	Execute  client.Execute  `cmd:"" group:"As an agent:" help:"Hire an agent and wait for its result."`
	Listen   client.Listen   `cmd:"" group:"As an agent:" help:"Print tasks as they are posted; forward them as webhooks to a local address."`
	Trigger  client.Trigger  `cmd:"" group:"As an agent:" help:"Send a sample webhook to a receiver."`
	Worker   client.Worker   `cmd:"" group:"As an agent:" help:"Do tasks with a program and earn credits."`
}

// The exit codes beside 0.
const (
	exitFailed = 1
	exitUsage  = 2
)

// Run parses the arguments and runs one command. It returns the exit code: 0,
// 1 when the command failed, 2 for a wrong argument.
func Run(ctx context.Context, args []string, streams client.Streams) int {
	code := -1
	parser, err := newParser(kong.Writers(streams.Out, streams.Err), kong.Exit(func(c int) { code = c }),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(streams))
	if err != nil {
		return fail(streams.Err, err, exitUsage)
	}
	parsed, err := parser.Parse(args)
	switch {
	case code >= 0: // --help has been answered
		return code
	case err != nil:
		return fail(streams.Err, suggestCommand(parser, err), exitUsage)
	}
	if err := parsed.Run(); err != nil {
		return fail(streams.Err, err, exitFailed)
	}
	return 0
}

// Model describes every command, its flags and their variables.
func Model() (*kong.Application, error) {
	parser, err := newParser()
	if err != nil {
		return nil, err
	}
	return parser.Model, nil
}

func newParser(options ...kong.Option) (*kong.Kong, error) {
	return kong.New(&rootCommand{}, append(options, kong.Name("agentmarket"),
		kong.Description("A self-hosted marketplace where AI agents find, hire and pay each other."))...)
}

func fail(stderr io.Writer, err error, code int) int {
	_, _ = fmt.Fprintf(stderr, "agentmarket: %v\n", err)
	return code
}

// suggestCommand says of a word that is no command which one may be meant. To kong it is an
// argument of the default command: without that one it looks among the others.
func suggestCommand(parser *kong.Kong, err error) error {
	failed, ok := errors.AsType[*kong.ParseError](err)
	if !ok || failed.Context == nil || !strings.HasPrefix(err.Error(), "unexpected argument") {
		return err
	}
	for _, step := range failed.Context.Path {
		parent := step.Parent
		if step.Command == nil || parent == nil || parent.DefaultCmd != step.Command || len(step.Remainder()) == 0 {
			continue
		}
		parent.DefaultCmd = nil
		words := append(strings.Fields(parent.Path()), step.Remainder()[0])
		if _, near := parser.Parse(words); near != nil {
			return fmt.Errorf("%w; '%s --help' lists the commands", near, parent.FullPath())
		}
	}
	return err
}

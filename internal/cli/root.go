package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/alecthomas/kong"

	"agentmarket.space/server/internal/client"
	"agentmarket.space/server/internal/dev"
)

// rootCommand is the command tree of the program.
type rootCommand struct {
	Serve      serveCommand      `cmd:"" default:"withargs" help:"Start the marketplace server (default)."`
	Dev        dev.Command       `cmd:"" help:"Start a local sandbox with sample agents, for development."`
	Config     configCommand     `cmd:"" help:"Print the effective configuration and the source of each setting."`
	Migrate    migrateCommand    `cmd:"" help:"Apply pending database migrations."`
	Verify     verifyCommand     `cmd:"" help:"Check that the ledger is consistent. Exits with 1 if it is not."`
	Copy       copyCommand       `cmd:"" help:"Copy a SQLite database into an empty PostgreSQL database."`
	Backup     backupCommand     `cmd:"" help:"Back up a SQLite database to a new file. Safe while the server runs."`
	Restore    restoreCommand    `cmd:"" help:"Restore a backup to a new database file."`
	Rekey      rekeyCommand      `cmd:"" help:"Re-encrypt secrets with a new key."`
	Health     client.Health     `cmd:"" help:"Check whether a server is ready. Exits with 1 if it is not."`
	Schema     schemaCommand     `cmd:"" help:"Print the GraphQL schema."`
	OpenAPI    openAPICommand    `cmd:"" name:"openapi" help:"Print the OpenAPI document of the REST API."`
	Completion completionCommand `cmd:"" help:"Print a shell completion script."`
	Version    versionCommand    `cmd:"" help:"Print the version."`

	Register client.Register `cmd:"" group:"Agent commands:" help:"Register an agent and print its API key."`
	Agents   client.Agents   `cmd:"" group:"Agent commands:" help:"List agents."`
	Tasks    client.Tasks    `cmd:"" group:"Agent commands:" help:"List, post, accept, complete and rate tasks."`
	Wallet   client.Wallet   `cmd:"" group:"Agent commands:" help:"Show your balance and recent wallet entries."`
	Execute  client.Execute  `cmd:"" group:"Agent commands:" help:"Hire an agent and wait for its result."`
	Listen   client.Listen   `cmd:"" group:"Agent commands:" help:"Print tasks as they are posted, and optionally forward them to a local webhook receiver."`
	Trigger  client.Trigger  `cmd:"" group:"Agent commands:" help:"Send a sample webhook to a receiver."`
	Worker   client.Worker   `cmd:"" group:"Agent commands:" help:"Run a shell command for each task and earn credits."`
}

// The exit codes other than 0.
const (
	exitFailed = 1
	exitUsage  = 2
)

// Run parses the arguments and runs one command. It returns the exit code: 0 for
// success, 1 if the command failed, 2 for invalid arguments or settings.
func Run(ctx context.Context, args []string, streams client.Streams) int {
	code := -1
	parser, err := newParser(kong.Writers(streams.Out, streams.Err), kong.Exit(func(c int) { code = c }),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(streams))
	if err != nil {
		return fail(streams.Err, err, exitUsage)
	}
	parsed, err := parser.Parse(args)
	switch {
	case code >= 0: // --help has been printed
		return code
	case err != nil:
		return fail(streams.Err, suggestCommand(parser, err), exitUsage)
	}
	if err := checkText(parsed.Selected(), args); err != nil {
		return fail(streams.Err, err, exitUsage)
	}
	if err := parsed.Run(); err != nil {
		return fail(streams.Err, err, exitFailed)
	}
	return 0
}

// checkText rejects arguments that are not UTF-8 for a command that sends them to a server:
// JSON would replace the invalid bytes. Other commands have paths of files, which may have
// any bytes.
func checkText(command *kong.Node, args []string) error {
	if command == nil || !command.Target.FieldByName("Remote").IsValid() {
		return nil
	}
	for _, arg := range args {
		if !utf8.ValidString(arg) {
			return fmt.Errorf("the argument %q is not valid UTF-8", arg)
		}
	}
	return nil
}

// Model returns the model of all commands, their flags and environment variables.
func Model() (*kong.Application, error) {
	parser, err := newParser()
	if err != nil {
		return nil, err
	}
	return parser.Model, nil
}

func newParser(options ...kong.Option) (*kong.Kong, error) {
	return kong.New(&rootCommand{}, append(options, kong.Name("agentmarket"),
		kong.Description("A self-hosted marketplace where AI agents find, hire and pay each other."),
		kong.PostBuild(func(k *kong.Kong) error {
			k.Model.HelpFlag.Help = "Print this help."
			return nil
		}))...)
}

func fail(stderr io.Writer, err error, code int) int {
	_, _ = fmt.Fprintf(stderr, "agentmarket: %v\n", err)
	return code
}

// suggestCommand adds a suggestion to the error of an unknown command. kong takes
// an unknown command for an argument of the default command, so suggestCommand
// parses it once more without a default command.
func suggestCommand(parser *kong.Kong, err error) error {
	parseErr, ok := errors.AsType[*kong.ParseError](err)
	if !ok || parseErr.Context == nil || !strings.HasPrefix(err.Error(), "unexpected argument") {
		return err
	}
	for _, step := range parseErr.Context.Path {
		parent := step.Parent
		if step.Command == nil || parent == nil || parent.DefaultCmd != step.Command || len(step.Remainder()) == 0 {
			continue
		}
		parent.DefaultCmd = nil
		words := append(strings.Fields(parent.Path()), step.Remainder()[0])
		if _, suggestion := parser.Parse(words); suggestion != nil {
			return fmt.Errorf("%w; '%s --help' lists the commands", suggestion, parent.FullPath())
		}
	}
	return err
}

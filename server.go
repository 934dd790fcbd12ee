// Command agentmarket is a marketplace where AI agents find, hire and pay each
// other: one process with GraphQL, live subscriptions, REST and webhooks over
// one ledger.
package main

//go:generate go tool gqlgen generate
//go:generate go run ./internal/sequential graph/generated/generated.go

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"agentmarket.space/server/app"
	"agentmarket.space/server/auth"
	"agentmarket.space/server/commands"
	"agentmarket.space/server/config"
	"agentmarket.space/server/database"
	"agentmarket.space/server/dev"
	"agentmarket.space/server/ledger"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// program is what the program can do.
type program struct {
	Serve   serveCommand    `cmd:"" default:"withargs" help:"Serve the marketplace (the default)."`
	Dev     dev.Command     `cmd:"" help:"Run a market for an afternoon, to develop against and to watch."`
	Verify  verifyCommand   `cmd:"" help:"Recompute the ledger; exit 1 when a law does not hold."`
	Copy    copyCommand     `cmd:"" help:"Move a market from SQLite into an empty PostgreSQL database."`
	Backup  backupCommand   `cmd:"" help:"Write a backup of a SQLite database, which a server may be at, to a new file."`
	Restore restoreCommand  `cmd:"" help:"Put a backup where a server is to serve it from."`
	Rekey   rekeyCommand    `cmd:"" help:"Seal secrets anew with another secret key."`
	Health  commands.Health `cmd:"" help:"Ask a server whether it is ready; exit 1 when it is not."`
	Version versionCommand  `cmd:"" help:"Print the version."`

	Register commands.Register `cmd:"" group:"As an agent:" help:"Register an agent and get its API key."`
	Agents   commands.Agents   `cmd:"" group:"As an agent:" help:"List agents."`
	Tasks    commands.Tasks    `cmd:"" group:"As an agent:" help:"List, post, accept, complete and rate tasks."`
	Wallet   commands.Wallet   `cmd:"" group:"As an agent:" help:"Show your credits and where they came from."`
	Execute  commands.Execute  `cmd:"" group:"As an agent:" help:"Hire an agent and wait for its result."`
	Listen   commands.Listen   `cmd:"" group:"As an agent:" help:"Print tasks as they are posted; forward them as webhooks to a local address."`
	Trigger  commands.Trigger  `cmd:"" group:"As an agent:" help:"Send a sample webhook to a receiver."`
	Worker   commands.Worker   `cmd:"" group:"As an agent:" help:"Do tasks with a program and earn credits."`
}

// run parses the arguments and runs one command. It returns the exit code: 0,
// 1 when the command failed, 2 for a wrong argument.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	code := -1
	parser, err := kong.New(&program{}, kong.Name("agentmarket"), kong.Writers(stdout, stderr),
		kong.Description("A self-hosted marketplace where AI agents find, hire and pay each other."),
		kong.Exit(func(c int) { code = c }), kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(commands.Streams{In: os.Stdin, Out: stdout, Err: stderr}))
	if err != nil {
		return fail(stderr, err, 2)
	}
	parsed, err := parser.Parse(args)
	switch {
	case code >= 0: // --help has been answered
		return code
	case err != nil:
		return fail(stderr, err, 2)
	}
	if err := parsed.Run(); err != nil {
		return fail(stderr, err, 1)
	}
	return 0
}

func fail(stderr io.Writer, err error, code int) int {
	_, _ = fmt.Fprintf(stderr, "agentmarket: %v\n", err)
	return code
}

type serveCommand struct {
	config.Config `embed:""`
}

// Run serves until ctx ends.
func (c *serveCommand) Run(ctx context.Context, to commands.Streams) (err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	c.Complete(listener.Addr())
	server, err := app.New(ctx, c.Config, version(), app.NewLogger(to.Err, c.Secrets()...))
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	if err := server.Banner(to.Err, version()); err != nil {
		return err
	}
	return server.Run(ctx, listener)
}

type verifyCommand struct {
	Database string `default:"agentmarket.db" env:"AGENTMARKET_DATABASE" help:"Path of the SQLite database or a postgres:// address. A server may be at it."`
}

// Run prints the report as JSON.
func (c *verifyCommand) Run(ctx context.Context, to commands.Streams) error {
	return database.Inspect(ctx, c.Database, func(state *database.State) error { return verify(state, to.Out) })
}

// verify writes the report on a ledger and fails when a law does not hold.
func verify(state *database.State, out io.Writer) error {
	report, err := ledger.Verify(state)
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(report); err != nil {
		return err
	}
	if n := len(report.Violations); n > 0 {
		return fmt.Errorf("the ledger does not hold: %d violations", n)
	}
	return nil
}

type copyCommand struct {
	From string `required:"" help:"Path of the SQLite database, which no server may be at."`
	To   string `required:"" help:"Address of the empty PostgreSQL database: postgres://…"`
}

// Run says what it is at, and prints the ledger's report of both sides.
func (c *copyCommand) Run(ctx context.Context, to commands.Streams) error {
	from := strings.TrimPrefix(c.From, "sqlite:")
	tell := func(done database.Copied) { _, _ = fmt.Fprintf(to.Err, "%-20s %10d\n", done.Table, done.Rows) }
	err := database.Copy(ctx, from, c.To, app.NewLogger(to.Err), tell, func(state *database.State) error { return verify(state, to.Out) })
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(to.Err, "Copied. Serve it with the secret key of %s: the one it was given, or what is in %[1]s.key.\n", from)
	return err
}

type backupCommand struct {
	Database string `default:"agentmarket.db" env:"AGENTMARKET_DATABASE" help:"Path of the SQLite database."`
	To       string `required:"" help:"Path of the backup, where nothing may be."`
}

// Run prints the ledger's report of the backup.
func (c *backupCommand) Run(ctx context.Context, to commands.Streams) error {
	err := database.Backup(ctx, c.Database, c.To, func(state *database.State) error { return verify(state, to.Out) })
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(to.Err, "Backed up. Keep the secret key elsewhere: the one the server was given, or what is in %s.key.\n", c.Database)
	return err
}

type restoreCommand struct {
	From     string `required:"" help:"Path of the backup."`
	Database string `default:"agentmarket.db" env:"AGENTMARKET_DATABASE" help:"Path of the SQLite database, where nothing may be."`
}

// Run prints the ledger's report of what is restored.
func (c *restoreCommand) Run(ctx context.Context, to commands.Streams) error {
	err := database.Restore(ctx, c.From, c.Database, func(state *database.State) error { return verify(state, to.Out) })
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(to.Err, "Restored. Serve it with the secret key of the server that was backed up, given or in %s.key.\n", c.Database)
	return err
}

type rekeyCommand struct {
	Database     string `default:"agentmarket.db" env:"AGENTMARKET_DATABASE" help:"Path of the SQLite database, which no server may be at, or a postgres:// address."`
	SecretKey    string `env:"AGENTMARKET_SECRET_KEY" help:"The key to seal with; when empty the one beside the database is replaced with a new one."`
	OldSecretKey string `env:"AGENTMARKET_OLD_SECRET_KEY" help:"The key to replace, when the new one is given."`
}

// Run says how far it has got.
func (c *rekeyCommand) Run(ctx context.Context, to commands.Streams) error {
	tell := func(done auth.Resealed) {
		_, _ = fmt.Fprintf(to.Err, "%-20s %10d looked at, %d sealed anew\n", done.Table, done.Rows, done.Changed)
	}
	kept, err := app.Rekey(ctx, app.Rekeying{Database: c.Database, SecretKey: c.SecretKey, OldSecretKey: c.OldSecretKey},
		app.NewLogger(to.Err, c.SecretKey, c.OldSecretKey), tell)
	if err != nil {
		return err
	}
	if kept != "" {
		_, err = fmt.Fprintf(to.Err, "Sealed anew. The old key is in %s: backups from before need it.\n", kept)
		return err
	}
	_, err = fmt.Fprintln(to.Err, "Sealed anew. Backups from before need the old key.")
	return err
}

type versionCommand struct{}

// Run prints the version.
func (*versionCommand) Run(to commands.Streams) error {
	_, err := fmt.Fprintln(to.Out, version())
	return err
}

// version is the module's version, or the commit that was built.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" && info.Main.Version == "(devel)" {
			return "devel-" + setting.Value[:min(12, len(setting.Value))]
		}
	}
	return info.Main.Version
}

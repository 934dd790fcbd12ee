package dev

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/alecthomas/kong"

	"agentmarket.space/server/internal/app"
	"agentmarket.space/server/internal/client"
	"agentmarket.space/server/internal/config"
)

// Command runs the sandbox.
type Command struct {
	Addr            string        `default:"127.0.0.1:8080" help:"Loopback address to listen on. Port 0 chooses a free port."`
	StartingCredits int64         `default:"10000" name:"starting-credits" help:"Credits granted to a new agent."`
	Pace            time.Duration `default:"2s" help:"Delay between two actions of a sample agent. 0s stops the sample agents."`
}

// Validate accepts only a loopback address, because the sandbox prints its keys and
// anyone with the operator key can move its clock.
func (c *Command) Validate() error {
	host, _, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return fmt.Errorf("--addr: %q is not an address like 127.0.0.1:8080", c.Addr)
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case host != "localhost" && (err != nil || !ip.IsLoopback()):
		return fmt.Errorf("--addr: %s is not a loopback address: the sandbox prints its keys, so it must not be reachable from other machines", host)
	case c.Pace < 0:
		return errors.New("--pace: must not be negative")
	case c.StartingCredits < minStartingCredits:
		return fmt.Errorf("--starting-credits: must be at least %d, or the sample agents cannot trade", minStartingCredits)
	}
	return nil
}

// Run runs the sandbox until ctx is done, and deletes its database.
func (c *Command) Run(ctx context.Context, to client.Streams) (err error) {
	dir, err := os.MkdirTemp("", "agentmarket-dev-")
	if err != nil {
		return fmt.Errorf("create a directory for the database: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Addr)
	if err != nil {
		return fmt.Errorf("%w; choose another address with --addr, or 127.0.0.1:0 for a free port", err)
	}
	m := &sandbox{command: c, dir: dir, clock: &app.Clock{}, console: &console{out: to.Out}}
	return errors.Join(m.run(ctx, listener, to), closeListener(listener))
}

// closeListener closes a listener that the server may have closed already.
func closeListener(listener net.Listener) error {
	if err := listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// sandbox is a running sandbox.
type sandbox struct {
	command     *Command
	dir         string
	clock       *app.Clock
	operatorKey string
	url         string
	console     *console
	services    *stubServices
}

// run runs the server and the sample agents until ctx is done, and waits for both to
// stop.
func (m *sandbox) run(ctx context.Context, listener net.Listener, to client.Streams) (err error) {
	if m.services, err = startStubServices(ctx, m.console); err != nil {
		return err
	}
	defer m.services.close()
	settings, err := m.serverConfig(listener.Addr())
	if err != nil {
		return err
	}
	m.url = settings.PublicURL
	logger := slog.New(slog.NewTextHandler(to.Err, &slog.HandlerOptions{Level: slog.LevelError}))
	server, err := app.NewDevelopment(ctx, settings, "dev", logger, app.Development{Clock: m.clock, RootCAs: m.services.roots})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }() //nolint:contextcheck,nolintlint // ctx is done by then; the linter misses that when it reads from its cache
	serving, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	var serveErr error
	group.Go(func() {
		defer stop()
		serveErr = server.Run(serving, listener)
	})
	runErr := m.runAgents(serving)
	stop()
	group.Wait()
	return errors.Join(runErr, serveErr)
}

// runAgents registers the sample agents, prints the welcome text and lets the agents
// trade until ctx is done.
func (m *sandbox) runAgents(ctx context.Context) error {
	agents, err := m.registerAgents(ctx)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // the caller stops
	}
	if err != nil {
		return fmt.Errorf("register the sample agents: %w", err)
	}
	m.console.printf("%s", m.welcomeText(agents.developer))
	if m.command.Pace > 0 {
		agents.run(ctx, m.command.Pace)
	}
	<-ctx.Done()
	return nil
}

// serverConfig returns the default configuration, with calls to loopback allowed and
// without rate limits. It ignores the environment, which configures another server.
func (m *sandbox) serverConfig(addr net.Addr) (c config.Config, err error) {
	var key [32]byte
	_, _ = rand.Read(key[:])
	m.operatorKey = hex.EncodeToString(key[:])
	parser, err := kong.New(&c, kong.Exit(func(int) {}), kong.PostBuild(func(k *kong.Kong) error {
		for _, flag := range k.Model.Flags {
			flag.Tag.Envs, flag.Envs = nil, nil
		}
		return nil
	}))
	if err != nil {
		return c, err
	}
	_, err = parser.Parse([]string{
		"--addr=" + m.command.Addr, "--database=" + filepath.Join(m.dir, "agentmarket.db"), "--operator-key=" + m.operatorKey,
		"--allow-networks=127.0.0.0/8,::1/128", "--rate-limits=off", fmt.Sprint("--starting-credits=", m.command.StartingCredits),
		"--anthropic-api-key=unused-by-the-stub", "--anthropic-base-url=" + m.services.claudeURL, "--claude-model=stub",
		"--keep-events=0s", "--keep-deliveries=0s", "--keep-audit=0s", // database triggers compare ages with the system time
	})
	if err != nil {
		return c, fmt.Errorf("configure the server: %w", err)
	}
	c.Complete(addr)
	return c, nil
}

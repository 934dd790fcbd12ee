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

// Command runs a market for an afternoon.
type Command struct {
	Addr            string        `default:"127.0.0.1:8080" help:"Address to listen on, of this machine alone; 127.0.0.1:0 for any free port."`
	StartingCredits int64         `default:"10000" name:"starting-credits" help:"Credits an agent gets."`
	Pace            time.Duration `default:"2s" help:"How long its own agents pause before each thing they do; 0s has them do nothing."`
}

// Validate refuses what others could reach, and what cannot be.
func (c *Command) Validate() error {
	host, _, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return fmt.Errorf("--addr: %q is not an address like 127.0.0.1:8080", c.Addr)
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case host != "localhost" && (err != nil || !ip.IsLoopback()):
		return fmt.Errorf("--addr: %s is not of this machine alone; its keys are shown and its clock moves, so it is for nobody else", host)
	case c.Pace < 0:
		return errors.New("--pace: must not be negative")
	case c.StartingCredits < minStartingCredits:
		return fmt.Errorf("--starting-credits: must be at least %d, so that its agents can trade", minStartingCredits)
	}
	return nil
}

// Run serves until ctx ends, and leaves nothing behind.
func (c *Command) Run(ctx context.Context, to client.Streams) (err error) {
	dir, err := os.MkdirTemp("", "agentmarket-dev-")
	if err != nil {
		return fmt.Errorf("make a folder for the database: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Addr)
	if err != nil {
		return fmt.Errorf("%w: --addr takes another, 127.0.0.1:0 any that is free", err)
	}
	m := &sandbox{command: c, dir: dir, clock: &app.Clock{}, console: &console{out: to.Out}}
	return errors.Join(m.run(ctx, listener, to), closeListener(listener))
}

// closeListener closes what may be closed already.
func closeListener(listener net.Listener) error {
	if err := listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// sandbox is what runs together.
type sandbox struct {
	command     *Command
	dir         string
	clock       *app.Clock
	operatorKey string
	url         string
	console     *console
	services    *stubServices
}

// run serves, has the agents trade and waits for the end of ctx and of everything.
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
	defer func() { err = errors.Join(err, server.Close()) }() //nolint:contextcheck,nolintlint // ctx has ended by then; from its cache the linter does not see that
	serving, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	var served error
	group.Go(func() {
		defer stop()
		served = server.Run(serving, listener)
	})
	lived := m.runAgents(serving)
	stop()
	group.Wait()
	return errors.Join(lived, served)
}

// runAgents introduces the agents, says where everything is and has them trade.
func (m *sandbox) runAgents(ctx context.Context) error {
	cast, err := m.registerAgents(ctx)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // it was asked to end
	}
	if err != nil {
		return fmt.Errorf("introduce the agents: %w", err)
	}
	m.console.printf("%s", m.welcomeText(cast.developer))
	if m.command.Pace > 0 {
		cast.run(ctx, m.command.Pace)
	}
	<-ctx.Done()
	return nil
}

// serverConfig are the standard ones, whatever the environment says: what it names is not
// for this market. What its agents need is allowed.
func (m *sandbox) serverConfig(listening net.Addr) (c config.Config, err error) {
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
		"--anthropic-api-key=a-stand-in-needs-none", "--anthropic-base-url=" + m.services.claudeURL, "--claude-model=a-stand-in",
		"--keep-events=0s", "--keep-deliveries=0s", "--keep-audit=0s", // the database goes by the true time when it lets go of what is old
	})
	if err != nil {
		return c, fmt.Errorf("the settings of the market: %w", err)
	}
	c.Complete(listening)
	return c, nil
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"net"

	"agentmarket.space/server/internal/app"
	"agentmarket.space/server/internal/client"
	"agentmarket.space/server/internal/config"
)

type serveCommand struct {
	config.File   `embed:""`
	config.Config `embed:""`

	NewSecretKey bool `help:"Give up the secrets in the database that the configured secret key cannot decrypt, because their key is lost. Creates a missing key file. Agents must rotate their webhook secrets. Use it for one start only." name:"new-secret-key"`
}

// Run serves until ctx is done.
func (c *serveCommand) Run(ctx context.Context, to client.Streams) (err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Addr)
	if err != nil {
		return fmt.Errorf("%w; choose another address with --addr, or 127.0.0.1:0 for a free port", err)
	}
	c.Complete(listener.Addr())
	c.GiveUpSecrets = c.NewSecretKey
	server, err := app.New(ctx, c.Config, version(), app.NewLogger(to.Err, c.Secrets()...))
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer func() { err = errors.Join(err, server.Close()) }() //nolint:contextcheck,nolintlint // ctx is done by then; the linter misses that when it reads from its cache
	if err := server.PrintStartupInfo(ctx, to.Err); err != nil {
		return err
	}
	return server.Run(ctx, listener)
}

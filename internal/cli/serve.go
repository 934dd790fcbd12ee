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
}

// Run serves until ctx ends.
func (c *serveCommand) Run(ctx context.Context, to client.Streams) (err error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Addr)
	if err != nil {
		return fmt.Errorf("%w: --addr takes another, 127.0.0.1:0 any that is free", err)
	}
	c.Complete(listener.Addr())
	server, err := app.New(ctx, c.Config, version(), app.NewLogger(to.Err, c.Secrets()...))
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer func() { err = errors.Join(err, server.Close()) }() //nolint:contextcheck,nolintlint // ctx has ended by then; from its cache the linter does not see that
	if err := server.PrintStartupInfo(ctx, to.Err); err != nil {
		return err
	}
	return server.Run(ctx, listener)
}

package localserver

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
)

// NATS is a NATS server.
type NATS struct {
	port, dir string
	server    *process // nil when it does not run
}

// NewNATS finds a place for a server, which Start starts there.
func NewNATS(ctx context.Context) (*NATS, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := newServerDir(nil)
	return &NATS{port: port, dir: dir}, err
}

// Address is where it is.
func (n *NATS) Address() string { return "nats://127.0.0.1:" + n.port }

// Start runs it and waits until it answers. ctx is for the waiting.
func (n *NATS) Start(ctx context.Context) (err error) {
	n.server, err = startProcess(context.WithoutCancel(ctx), n.dir, nil, "nats-server", "-a", "127.0.0.1", "-p", n.port)
	if err != nil {
		return err
	}
	return n.server.waitReady(func() error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", "127.0.0.1:"+n.port)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// Kill ends it at once, and waits until it is gone.
func (n *NATS) Kill() error {
	if n.server == nil {
		return nil
	}
	defer func() { n.server = nil }()
	return n.server.stop(syscall.SIGKILL)
}

// Remove ends it and removes what it left.
func (n *NATS) Remove() error { return errors.Join(n.Kill(), os.RemoveAll(n.dir)) }

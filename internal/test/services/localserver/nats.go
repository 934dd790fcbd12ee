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
	server    *process // nil while it is stopped
}

// NewNATS returns a server on a free port. Start starts it.
func NewNATS(ctx context.Context) (*NATS, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := newServerDir(nil)
	return &NATS{port: port, dir: dir}, err
}

// Address returns the URL of the server.
func (n *NATS) Address() string { return "nats://127.0.0.1:" + n.port }

// Start starts the server and waits until it accepts connections or ctx is done.
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

// Kill sends SIGKILL to the server and waits until it has exited.
func (n *NATS) Kill() error {
	if n.server == nil {
		return nil
	}
	defer func() { n.server = nil }()
	return n.server.stop(syscall.SIGKILL)
}

// Remove kills the server and removes its files.
func (n *NATS) Remove() error { return errors.Join(n.Kill(), os.RemoveAll(n.dir)) }

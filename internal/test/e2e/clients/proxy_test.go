package clients_test

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
)

// tcpProxy is a TCP proxy to a server. It can close every connection, and make new ones
// wait while the server is down.
type tcpProxy struct {
	url    string
	target string

	mu      sync.Mutex
	conns   map[net.Conn]struct{}
	paused  bool
	changed *sync.Cond // signals a change of paused
}

func startProxy(t *testing.T, server *testserver.Server) *tcpProxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &tcpProxy{
		url: "http://" + listener.Addr().String(), target: strings.TrimPrefix(server.URL, "http://"), conns: map[net.Conn]struct{}{},
	}
	d.changed = sync.NewCond(&d.mu)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { d.forward(conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		server.Kill() // so that no connection stays open
		d.setPaused(false)
		d.closeConnections()
		running.Wait()
	})
	return d
}

// forward copies data in both directions until one side is closed.
func (d *tcpProxy) forward(client net.Conn) {
	defer client.Close() //nolint:errcheck // it may be closed already
	d.mu.Lock()
	for d.paused {
		d.changed.Wait()
	}
	d.conns[client] = struct{}{}
	d.mu.Unlock()
	defer d.forget(client)
	server, err := net.Dial("tcp", d.target)
	if err != nil {
		return
	}
	var carrying sync.WaitGroup
	carrying.Go(func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	})
	_, _ = io.Copy(client, server)
	_ = client.Close()
	carrying.Wait()
}

func (d *tcpProxy) forget(client net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, client)
}

// closeConnections closes every connection, even in the middle of a message.
func (d *tcpProxy) closeConnections() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for conn := range d.conns {
		_ = conn.Close()
	}
}

// setPaused makes new connections wait, or lets them pass.
func (d *tcpProxy) setPaused(shut bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.paused = shut
	d.changed.Broadcast()
}

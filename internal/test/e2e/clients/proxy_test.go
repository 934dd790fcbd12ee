package clients_test

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
)

// tcpProxy is a TCP proxy in front of a server. It can cut every connection, and let
// new ones wait while there is no server behind it.
type tcpProxy struct {
	url    string
	target string

	mu      sync.Mutex
	conns   map[net.Conn]struct{}
	paused  bool
	changed *sync.Cond // shut was set or unset
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
		server.Kill() // so that no connection stays
		d.setPaused(false)
		d.closeConnections()
		running.Wait()
	})
	return d
}

// forward carries what both sides say until one of them ends.
func (d *tcpProxy) forward(client net.Conn) {
	defer client.Close() //nolint:errcheck // cut or ended
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

// closeConnections ends every connection, in the middle of whatever it carries.
func (d *tcpProxy) closeConnections() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for conn := range d.conns {
		_ = conn.Close()
	}
}

// setPaused has new connections wait, or lets them pass.
func (d *tcpProxy) setPaused(shut bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.paused = shut
	d.changed.Broadcast()
}

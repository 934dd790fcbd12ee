package database_test

import (
	"bytes"
	"net"
	"net/url"
	"sync"
	"testing"

	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
)

// connFault is how a connection fails.
type connFault int

const (
	noFault           connFault = iota
	resetAfterCommit            // forward the commit, then reset the client instead of forwarding the reply
	resetBeforeCommit           // reset the client without forwarding its next message
)

// proxy forwards connections to PostgreSQL and breaks them on request.
type proxy struct {
	upstream string
	listener net.Listener

	mu       sync.Mutex
	isDown   bool              // reset all connections, including new ones
	faults   map[int]connFault // by client port as PostgreSQL sees it
	conns    map[int]func()    // functions that reset a connection, by port
	rejected chan struct{}     // one value per rejected connection, up to its capacity
}

// newProxy returns a proxy to a new database, and the address of the database through
// the proxy.
func newProxy(t *testing.T) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(services.NewPostgresDatabase(t))
	testutil.Must(t, err)
	listen, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	testutil.Must(t, err)
	p := &proxy{upstream: u.Host, listener: listen, faults: map[int]connFault{}, conns: map[int]func(){}, rejected: make(chan struct{}, 100)}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			client, err := listen.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(func() {
		_ = listen.Close()
		p.setDown(true)
		serving.Wait()
	})
	u.Host = listen.Addr().String()
	return p, u.String()
}

// setDown resets all current and new connections, or stops doing so.
func (p *proxy) setDown(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isDown = down
	for _, reset := range p.conns {
		if down {
			reset()
		}
	}
}

// setFault sets the fault of a connection.
func (p *proxy) setFault(port int, fault connFault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults[port] = fault
}

func (p *proxy) faultOf(port int) connFault {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults[port]
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close() //nolint:errcheck // it may be reset already
	server, err := (&net.Dialer{}).Dial("tcp", p.upstream)
	if err != nil {
		return
	}
	defer server.Close()                           //nolint:errcheck // it may be reset already
	port := server.LocalAddr().(*net.TCPAddr).Port //nolint:errcheck,forcetypeassert // it is TCP
	var once sync.Once
	reset := func() {
		once.Do(func() {
			_ = client.(*net.TCPConn).SetLinger(0) //nolint:errcheck,forcetypeassert // it is TCP
			_ = client.Close()
			_ = server.Close()
		})
	}
	p.mu.Lock()
	rejected := p.isDown
	p.conns[port] = reset
	p.mu.Unlock()
	if rejected {
		reset()
		select {
		case p.rejected <- struct{}{}:
		default:
		}
	}
	var forwarding sync.WaitGroup
	forwarding.Go(func() { p.forward(port, client, server, resetBeforeCommit, reset) })
	forwarding.Go(func() { p.forward(port, server, client, resetAfterCommit, reset) })
	forwarding.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, port)
	delete(p.faults, port)
}

// forward copies data from one side to the other until a side is closed or the fault
// occurs.
func (p *proxy) forward(port int, from, to net.Conn, fault connFault, reset func()) {
	defer reset()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil || p.faultOf(port) == fault && (fault == resetBeforeCommit || bytes.Contains(buffer[:n], []byte("COMMIT\x00"))) {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

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
	resetAfterCommit            // a commit gets through, and the client is reset instead of told
	resetBeforeCommit           // what the client says does not get through, and it is reset
)

// proxy stands between processes and PostgreSQL, and fails when it is told to.
type proxy struct {
	upstream string
	listener net.Listener

	mu       sync.Mutex
	isDown   bool              // connections are reset, new ones too
	faults   map[int]connFault // by the port that the engine sees
	conns    map[int]func()    // resets each
	rejected chan struct{}     // has one for each connection that was refused, as far as there is room
}

// newProxy returns a proxy to a database of the test's own, and the address of the
// database through it.
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

// setDown resets all connections, and those to come, or lets them be.
func (p *proxy) setDown(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isDown = cut
	for _, reset := range p.conns {
		if cut {
			reset()
		}
	}
}

// setFault has a connection fail from now on.
func (p *proxy) setFault(port int, how connFault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults[port] = how
}

func (p *proxy) faultOf(port int) connFault {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults[port]
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close() //nolint:errcheck // it may be reset already
	engine, err := (&net.Dialer{}).Dial("tcp", p.upstream)
	if err != nil {
		return
	}
	defer engine.Close()                           //nolint:errcheck // it may be reset already
	port := engine.LocalAddr().(*net.TCPAddr).Port //nolint:errcheck,forcetypeassert // it is TCP
	var once sync.Once
	reset := func() {
		once.Do(func() {
			_ = client.(*net.TCPConn).SetLinger(0) //nolint:errcheck,forcetypeassert // it is TCP
			_ = client.Close()
			_ = engine.Close()
		})
	}
	p.mu.Lock()
	refused := p.isDown
	p.conns[port] = reset
	p.mu.Unlock()
	if refused {
		reset()
		select {
		case p.rejected <- struct{}{}:
		default:
		}
	}
	var passing sync.WaitGroup
	passing.Go(func() { p.forward(port, client, engine, resetBeforeCommit, reset) })
	passing.Go(func() { p.forward(port, engine, client, resetAfterCommit, reset) })
	passing.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, port)
	delete(p.faults, port)
}

// forward hands on what one side sends until either is gone or the fault is there.
func (p *proxy) forward(port int, from, to net.Conn, at connFault, reset func()) {
	defer reset()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil || p.faultOf(port) == at && (at == resetBeforeCommit || bytes.Contains(buffer[:n], []byte("COMMIT\x00"))) {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

package database_test

import (
	"bytes"
	"net"
	"net/url"
	"sync"
	"testing"

	"agentmarket.space/server/internal/test/services"
)

// fault is how a connection fails.
type fault int

const (
	none fault = iota
	deaf       // a commit gets through, and the client is reset instead of told
	mute       // what the client says does not get through, and it is reset
)

// proxy stands between processes and PostgreSQL, and fails when it is told to.
type proxy struct {
	engine string
	listen net.Listener

	mu      sync.Mutex
	cut     bool           // connections are reset, new ones too
	faults  map[int]fault  // by the port that the engine sees
	conns   map[int]func() // resets each
	refused chan struct{}  // has one for each connection that was refused, as far as there is room
}

// through returns a proxy to a database of the test's own, and the address of the
// database through it.
func through(t *testing.T) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(services.Postgres(t))
	must(t, err)
	listen, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	p := &proxy{engine: u.Host, listen: listen, faults: map[int]fault{}, conns: map[int]func(){}, refused: make(chan struct{}, 100)}
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
		p.setCut(true)
		serving.Wait()
	})
	u.Host = listen.Addr().String()
	return p, u.String()
}

// setCut resets all connections, and those to come, or lets them be.
func (p *proxy) setCut(cut bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = cut
	for _, reset := range p.conns {
		if cut {
			reset()
		}
	}
}

// fail has a connection fail from now on.
func (p *proxy) fail(port int, how fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults[port] = how
}

func (p *proxy) fault(port int) fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults[port]
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close() //nolint:errcheck // it may be reset already
	engine, err := (&net.Dialer{}).Dial("tcp", p.engine)
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
	refused := p.cut
	p.conns[port] = reset
	p.mu.Unlock()
	if refused {
		reset()
		select {
		case p.refused <- struct{}{}:
		default:
		}
	}
	var passing sync.WaitGroup
	passing.Go(func() { p.pass(port, client, engine, mute, reset) })
	passing.Go(func() { p.pass(port, engine, client, deaf, reset) })
	passing.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, port)
	delete(p.faults, port)
}

// pass hands on what one side sends until either is gone or the fault is there.
func (p *proxy) pass(port int, from, to net.Conn, at fault, reset func()) {
	defer reset()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil || p.fault(port) == at && (at == mute || bytes.Contains(buffer[:n], []byte("COMMIT\x00"))) {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

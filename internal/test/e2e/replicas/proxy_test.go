package replicas_test

import (
	"net"
	"net/url"
	"sync"
	"testing"
)

// proxy forwards connections from a replica to a service, and can fail on demand.
type proxy struct {
	target   string
	listener net.Listener

	mu      sync.Mutex
	changed *sync.Cond
	cut     bool // connections are reset, also new ones
	stalled bool // no data passes
	conns   map[*net.TCPConn]bool
}

// startProxy starts a proxy to a service and returns it with its URL.
func startProxy(t *testing.T, address string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	listen, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{target: u.Host, listener: listen, conns: map[*net.TCPConn]bool{}}
	p.changed = sync.NewCond(&p.mu)
	var serving sync.WaitGroup
	serving.Go(func() { p.serve(&serving) })
	t.Cleanup(func() {
		_ = listen.Close()
		p.setFault(true, false)
		serving.Wait()
	})
	u.Host = listen.Addr().String()
	return p, u.String()
}

// setFault sets how the proxy fails.
func (p *proxy) setFault(cut, stalled bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.stalled = cut, stalled
	p.changed.Broadcast()
	if cut {
		for conn := range p.conns {
			_ = conn.SetLinger(0) // a reset
			_ = conn.Close()
		}
	}
}

func (p *proxy) serve(serving *sync.WaitGroup) {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		serving.Go(func() {
			engine, err := (&net.Dialer{}).Dial("tcp", p.target)
			if err != nil {
				_ = client.Close()
				return
			}
			var passing sync.WaitGroup
			passing.Go(func() { p.forward(client, engine) })
			passing.Go(func() { p.forward(engine, client) })
			passing.Wait()
		})
	}
}

// forward copies data in one direction until either side is closed.
func (p *proxy) forward(from, to net.Conn) {
	conn, _ := from.(*net.TCPConn)
	p.mu.Lock()
	p.conns[conn] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.conns, conn)
		p.mu.Unlock()
		_, _ = from.Close(), to.Close()
	}()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil || !p.waitOpen() {
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// waitOpen waits while the proxy is stalled and reports whether it is not cut.
func (p *proxy) waitOpen() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.stalled && !p.cut {
		p.changed.Wait()
	}
	return !p.cut
}

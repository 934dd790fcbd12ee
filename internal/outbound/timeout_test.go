package outbound

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"agentmarket.space/server/internal/test/testutil"
)

// slowReceiver is a receiver that never finishes its part of a request. It counts the
// requests that it has seen and reports on ended when the client has ended one.
type slowReceiver struct {
	url   string
	seen  *atomic.Int64
	ended chan struct{}
}

// checkTimeout sends a request with a short deadline, and checks that it times out and that
// the receiver sees the end of it.
func (r slowReceiver) checkTimeout(t *testing.T, post func(context.Context, string, http.Header, []byte) (*Response, error), body string) {
	t.Helper()
	for timeout := 300 * time.Millisecond; r.seen.Load() == 0; timeout *= 2 { // a busy machine may not even connect in time
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		got, err := post(ctx, r.url, nil, []byte(body))
		cancel()
		if err == nil || err.Error() != "the request timed out" {
			t.Fatalf("got %v, %v", got, err)
		}
	}
	testutil.Receive(t, "the end of the request", r.ended)
}

// startSlowReceiver starts a receiver that accepts TCP connections, and calls serve from the
// first byte that the client sends until it closes the connection. With a config they are TLS connections.
func startSlowReceiver(t *testing.T, config *tls.Config, serve func(w io.Writer, closed <-chan struct{})) slowReceiver {
	t.Helper()
	var listen net.ListenConfig
	listener, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	testutil.Must(t, err)
	r := slowReceiver{url: "https://" + listener.Addr().String(), seen: new(atomic.Int64), ended: make(chan struct{}, 10)}
	if config != nil {
		listener = tls.NewListener(listener, config)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			r.seen.Add(1)
			sent, closed := make(chan struct{}), make(chan struct{})
			serving.Go(func() {
				defer close(closed)
				_, _ = conn.Read(make([]byte, 1))
				close(sent)
				_, _ = io.Copy(io.Discard, conn) // until the client closes it, in any way
				r.ended <- struct{}{}
			})
			serving.Go(func() {
				<-sent // a response before the request is an error
				serve(conn, closed)
				<-closed
				_ = conn.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	return r
}

// drip returns a serve function that writes start and then piece again and again.
func drip(start, piece string) func(w io.Writer, closed <-chan struct{}) {
	return func(w io.Writer, closed <-chan struct{}) {
		_, _ = io.WriteString(w, start)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-closed:
				return
			case <-tick.C:
				_, _ = io.WriteString(w, piece)
			}
		}
	}
}

// startSlowHTTP2 starts an HTTP/2 receiver whose handler calls write until the client
// resets the stream.
func startSlowHTTP2(t *testing.T, certified *httptest.Server, write func(http.ResponseWriter)) slowReceiver {
	t.Helper()
	r := slowReceiver{seen: new(atomic.Int64), ended: make(chan struct{}, 10)}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		r.seen.Add(1)
		_, _ = io.Copy(io.Discard, request.Body)
		if request.ProtoMajor != 2 {
			t.Errorf("the protocol is %s", request.Proto)
		}
		drip("", "x")(writerFunc(func(p []byte) (int, error) {
			write(w)
			return len(p), nil
		}), request.Context().Done())
		r.ended <- struct{}{}
	}))
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{Certificates: certified.TLS.Certificates, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestPost_timeout: the deadline of a request is the end of everything that belongs to it.
// A receiver that is slow in any phase cannot hold the connection for longer.
func TestPost_timeout(t *testing.T) {
	t.Parallel()
	certified := serveTLS(t, func(http.ResponseWriter, *http.Request) {})
	config := &tls.Config{Certificates: certified.TLS.Certificates, MinVersion: tls.VersionTLS12}
	tcp := func(config *tls.Config, first, piece string) func(t *testing.T) slowReceiver {
		return func(t *testing.T) slowReceiver {
			t.Helper()
			return startSlowReceiver(t, config, drip(first, piece))
		}
	}
	http2 := func(write func(http.ResponseWriter)) func(t *testing.T) slowReceiver {
		return func(t *testing.T) slowReceiver {
			t.Helper()
			return startSlowHTTP2(t, certified, write)
		}
	}
	for name, start := range map[string]func(t *testing.T) slowReceiver{
		"no handshake":            tcp(nil, "", ""),
		"a slow handshake":        tcp(nil, "\x16\x03\x03\x10\x00", "\x02"), // a TLS record of 4096 bytes, one by one
		"no response":             tcp(config, "", ""),
		"slow headers":            tcp(config, "HTTP/1.1 200 OK\r\n", "X-Slow: 1\r\n"),
		"informational responses": tcp(config, "", "HTTP/1.1 102 Processing\r\n\r\n"),
		"a slow body":             tcp(config, "HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", "x"),
		"a slow chunked body":     tcp(config, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"),

		"HTTP/2, no response":             http2(func(http.ResponseWriter) {}),
		"HTTP/2, informational responses": http2(func(w http.ResponseWriter) { w.WriteHeader(http.StatusProcessing) }),
		"HTTP/2, a slow body": http2(func(w http.ResponseWriter) {
			_, _ = w.Write([]byte("x"))
			_ = http.NewResponseController(w).Flush()
		}),
	} {
		for _, once := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", once"}[once], func(t *testing.T) {
				t.Parallel()
				r := start(t)
				c := newPatientClient(certified)
				t.Cleanup(c.CloseIdleConnections)
				post := c.Post
				if once {
					post = c.PostOnce
				}
				r.checkTimeout(t, post, "{}")
			})
		}
	}
}

// TestPost_timeoutWhileSending: a receiver that reads nothing cannot hold the connection
// either.
func TestPost_timeoutWhileSending(t *testing.T) {
	t.Parallel()
	certified := serveTLS(t, func(http.ResponseWriter, *http.Request) {})
	var listen net.ListenConfig
	plain, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	testutil.Must(t, err)
	listener := tls.NewListener(plain, &tls.Config{Certificates: certified.TLS.Certificates, MinVersion: tls.VersionTLS12})
	r := slowReceiver{url: "https://" + plain.Addr().String(), seen: new(atomic.Int64), ended: make(chan struct{}, 10)}
	posted := make(chan struct{})
	var closed sync.Once
	var serving sync.WaitGroup
	serving.Go(func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close() //nolint:errcheck // the test is over
		r.seen.Add(1)
		_, _ = conn.Read(make([]byte, 1)) // completes the handshake
		<-posted
		_, _ = io.Copy(io.Discard, conn)
		r.ended <- struct{}{}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	post := newPatientClient(certified).Post
	r.checkTimeout(t, func(ctx context.Context, url string, header http.Header, body []byte) (*Response, error) {
		defer closed.Do(func() { close(posted) })
		return post(ctx, url, header, body)
	}, strings.Repeat("x", 32<<20))
}

// newPatientClient returns a client that trusts a server and whose only limit is the
// deadline of a request.
func newPatientClient(trusted *httptest.Server) *Client {
	c := New(Options{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, RootCAs: certPool(trusted)})
	config := &tls.Config{RootCAs: certPool(trusted), NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12}
	for _, client := range []*http.Client{c.http, c.httpOnce} {
		client.Transport.(*http.Transport).DialTLSContext = tlsDialer{&net.Dialer{}, config, 2 * testutil.Timeout}.dial //nolint:errcheck,forcetypeassert // New sets it
	}
	return c
}

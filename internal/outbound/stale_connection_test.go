package outbound

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"agentmarket.space/server/internal/test/testutil"
)

// forgetfulServer answers one request on each connection, keeps the connection, and closes
// it at the first byte of the next request.
type forgetfulServer struct {
	url      string
	roots    *x509.CertPool
	requests atomic.Int64
}

func startForgetfulServer(t *testing.T) *forgetfulServer {
	t.Helper()
	certified := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate
	t.Cleanup(certified.Close)
	var config net.ListenConfig
	plain, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	testutil.Must(t, err)
	listener := tls.NewListener(plain, &tls.Config{Certificates: certified.TLS.Certificates, MinVersion: tls.VersionTLS12})
	s := &forgetfulServer{url: "https://" + plain.Addr().String(), roots: x509.NewCertPool()}
	s.roots.AddCert(certified.Certificate())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { s.serve(conn) })
		}
	})
	t.Cleanup(func() {
		testutil.Must(t, listener.Close())
		serving.Wait()
	})
	return s
}

func (s *forgetfulServer) serve(conn net.Conn) {
	defer conn.Close() //nolint:errcheck // the client sees the end
	reader := bufio.NewReader(conn)
	request, err := http.ReadRequest(reader)
	if err != nil {
		return
	}
	if _, err := reader.Discard(int(request.ContentLength)); err != nil {
		return
	}
	s.requests.Add(1)
	if _, err := conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")); err != nil {
		return
	}
	_, _ = reader.ReadByte()
}

// TestPost_staleConnection: no request is lost because the receiver closed a connection
// that was kept, and none arrives twice.
func TestPost_staleConnection(t *testing.T) {
	t.Parallel()
	type post = func(context.Context, string, http.Header, []byte) (*Response, error)
	for name, method := range map[string]func(*Client) post{
		"repeatable": func(c *Client) post { return c.Post },
		"once":       func(c *Client) post { return c.PostOnce },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startForgetfulServer(t)
			client := New(Options{RootCAs: s.roots, AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
			defer client.CloseIdleConnections()
			const posts = 6
			for range posts {
				response, err := method(client)(t.Context(), s.url, nil, []byte("hello"))
				testutil.Must(t, err)
				testutil.Equal(t, "status", response.Status, http.StatusOK)
			}
			testutil.Equal(t, "requests", s.requests.Load(), posts)
		})
	}
}

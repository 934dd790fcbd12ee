package outbound

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"code.dny.dev/ssrf"

	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/internal/test/trust/trusttest"
)

// privateAddresses returns addresses that must not be called.
func privateAddresses() []string {
	return []string{
		"127.0.0.1", "127.1.2.3", "127.255.255.255", "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255",
		"192.168.0.1", "192.168.255.255", "100.64.0.1", "100.127.255.255", "169.254.0.1", "169.254.169.254", "192.0.0.1", "192.0.0.8",
		"192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "198.19.255.255", "192.88.99.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
		"255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::ffff:0:127.0.0.1",
		"64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "2001::1", "2001:2::1", "2001:10::1", "2001:db8::1", "2002:7f00:1::1",
		"2002:a9fe:a9fe::1", "fc00::1", "fd00:ec2::254", "fdff::1", "fe80::1", "febf::1", "fec0::1", "ff02::1", "ff0e::1",
	}
}

// TestForbiddenAddresses checks the addresses and ports that the dialer allows.
func TestForbiddenAddresses(t *testing.T) {
	t.Parallel()
	check := New(Options{}).checkDial(ssrf.New(ssrf.WithPorts(443)))
	dial := func(address, port string) error {
		network := "tcp4"
		if strings.Contains(address, ":") {
			network = "tcp6"
		}
		return check(network, net.JoinHostPort(address, port), nil)
	}
	for _, address := range privateAddresses() {
		if err := dial(address, "443"); !errors.Is(err, ErrForbiddenAddress) {
			t.Errorf("%s is allowed: %v", address, err)
		}
	}
	public := []string{"1.1.1.1", "8.8.8.8", "93.184.215.14", "172.15.0.1", "172.32.0.1", "100.128.0.1", "2606:4700:4700::1111", "2a00:1450:4001:830::200e"}
	for _, address := range public {
		if err := dial(address, "443"); err != nil {
			t.Errorf("%s is not allowed: %v", address, err)
		}
		if err := dial(address, "22"); !errors.Is(err, ErrForbiddenAddress) {
			t.Errorf("port 22 of %s is allowed: %v", address, err)
		}
	}
	allowing := New(Options{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}).checkDial(ssrf.New(ssrf.WithPorts(443)))
	for _, address := range []string{"10.0.0.1:8443", "[::ffff:10.0.0.1]:80"} {
		if err := allowing("tcp", address, nil); err != nil {
			t.Errorf("%s is in an allowed network and not allowed: %v", address, err)
		}
	}
	if err := allowing("tcp4", "127.0.0.1:443", nil); !errors.Is(err, ErrForbiddenAddress) {
		t.Errorf("an address outside the allowed network is allowed: %v", err)
	}
	trusttest.Report(t, "addresses", "%d forbidden addresses are refused, %d public ones are not", len(privateAddresses()), len(public))
}

// TestPost calls real TLS servers that misbehave in every known way.
func TestPost(t *testing.T) {
	t.Parallel()
	target := serveTLS(t, func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") })
	server := serveTLS(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body) // the server detects a closed connection only after reading the body
		if err != nil {
			return
		}
		switch r.URL.Path {
		case "/echo":
			_, _ = w.Write(body)
		case "/redirect":
			http.Redirect(w, r, target.URL, http.StatusTemporaryRedirect)
		case "/endless":
			for {
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		case "/slow-body":
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		case "/silent":
			<-r.Context().Done()
		case "/broken":
			panic(http.ErrAbortHandler)
		case "/headers":
			for range 200 {
				w.Header().Add("X-Long", strings.Repeat("a", 1000))
			}
		case "/switched":
			switchProtocols(w)
		case "/compressed":
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write([]byte("\x1f\x8bnot decompressed"))
		}
	})
	c := New(Options{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, RootCAs: certPool(target, server), UserAgent: "Test/1"})
	const shortTimeout = 300 * time.Millisecond
	post := func(client *Client, url string, timeout time.Duration) (*Response, error) {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		return client.Post(ctx, url, http.Header{"Content-Type": {"application/json"}}, []byte(`{"a":1}`))
	}
	if got, err := post(c, server.URL+"/echo", testutil.Timeout); err != nil || string(got.Body) != `{"a":1}` {
		t.Errorf("echo: %v, %v", got, err)
	}
	if got, err := post(c, server.URL+"/redirect", testutil.Timeout); err != nil || got.Status != http.StatusTemporaryRedirect {
		t.Errorf("redirect: %v, %v", got, err)
	}
	if got, err := post(c.WithMaxResponse(1000), server.URL+"/endless", testutil.Timeout); err != nil || len(got.Body) != 1000 {
		t.Errorf("endless: %v", err)
	}
	if got, err := post(c, server.URL+"/compressed", testutil.Timeout); err != nil || !strings.HasSuffix(string(got.Body), "not decompressed") {
		t.Errorf("compressed: %v, %v", got, err)
	}
	if got, err := post(c, server.URL+"/switched", shortTimeout); err != nil || got.Status != http.StatusSwitchingProtocols || len(got.Body) > 0 {
		t.Errorf("switched protocol: %v, %v", got, err)
	}
	closed := serveTLS(t, nil)
	closed.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	stalled, err := net.Listen("tcp", "127.0.0.1:0") // accepts connections and sends nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stalled.Close() })
	for name, row := range map[string]struct {
		client    *Client
		url, want string
	}{
		"a slow body":              {c, server.URL + "/slow-body", "the request timed out"},
		"no response":              {c, server.URL + "/silent", "the request timed out"},
		"a stalled handshake":      {c, "https://" + stalled.Addr().String(), "the request timed out"},
		"a broken connection":      {c, server.URL + "/broken", "the connection failed"},
		"endless headers":          {c, server.URL + "/headers", "the connection failed"},
		"a closed port":            {c, closed.URL, "the connection was refused"},
		"no TLS":                   {c, "https" + strings.TrimPrefix(plain.URL, "http"), "the server does not speak TLS"},
		"plain HTTP":               {c, plain.URL, "the URL must use https"},
		"an untrusted certificate": {New(Options{AllowNetworks: c.networks}), server.URL, "the TLS certificate is not valid"},
		"an unknown host name":     {c, "https://name.invalid/", "the host name cannot be resolved"},
		"a private address":        {New(Options{RootCAs: certPool(server)}), server.URL, "the address is not public"},
		"a private host name":      {New(Options{RootCAs: certPool(server)}), strings.Replace(server.URL, "127.0.0.1", "localhost", 1), "the address is not public"},
		"an invalid URL":           {c, "https://[", "the URL is not valid"},
	} {
		timeout := testutil.Timeout
		if row.want == "the request timed out" {
			timeout = shortTimeout
		}
		if got, err := post(row.client, row.url, timeout); err == nil || err.Error() != row.want {
			t.Errorf("%s: got %v, %v, want %q", name, got, err, row.want)
		}
	}
}

// switchProtocols responds with status 101 and sends nothing else until the client
// closes the connection or five seconds have passed.
func switchProtocols(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n"))
	_, _ = conn.Read(make([]byte, 1))
}

// serveTLS starts a TLS server.
func serveTLS(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func certPool(servers ...*httptest.Server) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, server := range servers {
		pool.AddCert(server.Certificate())
	}
	return pool
}

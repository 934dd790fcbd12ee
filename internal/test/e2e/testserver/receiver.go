package testserver

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// DialWebSocket opens a GraphQL socket and waits until it is welcome.
func (s *Server) DialWebSocket(ctx context.Context) (*websocket.Conn, error) {
	dialer := websocket.Dialer{Subprotocols: []string{"graphql-transport-ws"}}
	conn, response, err := dialer.DialContext(ctx, strings.Replace(s.URL, "http", "ws", 1)+"/graphql", nil)
	if err != nil {
		return nil, err
	}
	_ = response.Body.Close() // the connection is the body
	err = conn.WriteMessage(websocket.TextMessage, []byte(`{"type":"connection_init"}`))
	if err == nil {
		var text []byte
		if _, text, err = conn.ReadMessage(); err == nil && !strings.Contains(string(text), "connection_ack") {
			err = fmt.Errorf("welcomed with %s", text)
		}
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// ExpectExit wants the program to end with a code, and to say why in one line,
// without a password: that of a test is secret.
func ExpectExit(tb testing.TB, code int, says string, args ...string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), waitTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, BinaryPath(), args...)
	cmd.Dir = tb.TempDir()
	out, err := cmd.CombinedOutput()
	text := string(out)
	if err == nil || cmd.ProcessState.ExitCode() != code || !strings.Contains(text, says) || strings.Count(text, "\n") != 1 || strings.Contains(text, "secret@") {
		tb.Errorf("%q ended with %v, want exit code %d and a line with %q:\n%s", args, err, code, says, text)
	}
}

// MemoryUsage is how many bytes of the memory the server takes now, and the most that it
// has taken, as Linux counts them. Elsewhere the test is skipped.
func (s *Server) MemoryUsage() (now, most int64) {
	s.tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.tb.Skip("only Linux tells how much memory a process takes")
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			now = kib << 10
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			most = kib << 10
		}
	}
	return now, most
}

// ServeTLS serves handler over TLS on 127.0.0.1, where agents have their
// endpoints and webhooks in tests. The settings returned have a server call such
// addresses and trust their certificate. A request that shows a key or a secret fails
// the test.
func ServeTLS(tb testing.TB, handler http.Handler) (url string, env []string) {
	tb.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // it was cut off
		}
		if shown := secretsInRequest(r.Header, body); len(shown) > 0 {
			tb.Errorf("a request shows %q", shown)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		handler.ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // a killed caller is no news
	own, err := selfSigned()
	if err != nil {
		tb.Fatal(err)
	}
	server.TLS = &tls.Config{Certificates: []tls.Certificate{own}}
	server.StartTLS()
	tb.Cleanup(server.Close)
	file := filepath.Join(tb.TempDir(), "certificate.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, certificate, 0o600); err != nil {
		tb.Fatal(err)
	}
	// With SSL_CERT_DIR too the system's hundred and more are not read at each start.
	return server.URL, []string{"SSL_CERT_FILE=" + file, "SSL_CERT_DIR=" + filepath.Dir(file), "AGENTMARKET_ALLOW_NETWORKS=127.0.0.0/8"}
}

// selfSigned is the one certificate for 127.0.0.1 of all receivers of a process, so that a
// server which trusts one trusts them all. With the RSA key that httptest has, signing was
// more than half of what a test that kills its server did.
var selfSigned = sync.OnceValues(func() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
})

// RequireTool returns the path of a program that a test needs. Without it the test is
// skipped, but not in CI.
func RequireTool(tb testing.TB, name string) string {
	tb.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") != "" {
			tb.Fatalf("%s is not installed, and in CI this test must run", name)
		}
		tb.Skipf("%s is not installed", name)
	}
	return path
}

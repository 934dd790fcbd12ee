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
)

// ExpectExit checks that the program exits with a code and prints one line that contains
// wantMessage and no password. Passwords in tests end in "secret".
func ExpectExit(tb testing.TB, code int, wantMessage string, args ...string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), waitTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, BinaryPath(), args...)
	cmd.Dir = tb.TempDir()
	out, err := cmd.CombinedOutput()
	text := string(out)
	if err == nil || cmd.ProcessState.ExitCode() != code || !strings.Contains(text, wantMessage) || strings.Count(text, "\n") != 1 || strings.Contains(text, "secret@") {
		tb.Errorf("%q ended with %v, want exit code %d and a line with %q:\n%s", args, err, code, wantMessage, text)
	}
}

// MemoryUsage returns the current and the maximum resident memory of the server in bytes.
// Except on Linux it skips the test.
func (s *Server) MemoryUsage() (now, peak int64) {
	s.tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.tb.Skip("the memory of a process can be read on Linux only")
	}
	for line := range strings.Lines(string(text)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			now = kib << 10
		}
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			peak = kib << 10
		}
	}
	return now, peak
}

// ServeTLS serves handler over TLS on 127.0.0.1, for endpoints and webhooks. With the
// returned settings a server trusts the certificate and may call the address. A request
// that contains a key or a secret fails the test.
func ServeTLS(tb testing.TB, handler http.Handler) (url string, env []string) {
	tb.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the connection was closed
		}
		if shown := secretsInRequest(r.Header, body); len(shown) > 0 {
			tb.Errorf("a request contains %q", shown)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		handler.ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // killed servers cause TLS errors
	certificate, err := selfSigned()
	if err != nil {
		tb.Fatal(err)
	}
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.StartTLS()
	tb.Cleanup(server.Close)
	file := filepath.Join(tb.TempDir(), "certificate.pem")
	encoded := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, encoded, 0o600); err != nil {
		tb.Fatal(err)
	}
	// SSL_CERT_DIR keeps the server from reading the system's certificates at each start.
	return server.URL, []string{"SSL_CERT_FILE=" + file, "SSL_CERT_DIR=" + filepath.Dir(file), "AGENTMARKET_ALLOW_NETWORKS=127.0.0.0/8"}
}

// selfSigned is the certificate for 127.0.0.1 of all receivers of a process. It has an
// ECDSA key, because signing with the RSA key of httptest took more than half of the CPU
// time of the kill tests.
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

// RequireTool returns the path of a program. Without it the test is skipped; in CI it
// fails.
func RequireTool(tb testing.TB, name string) string {
	tb.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") != "" {
			tb.Fatalf("%s is not installed; this test must run in CI", name)
		}
		tb.Skipf("%s is not installed", name)
	}
	return path
}

package webhooks_test

import (
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/internal/test/trust/trusttest"
)

// maxMemoryGrowth bounds the growth of the server's memory, to a sixteenth of what one of
// the receivers sends.
const maxMemoryGrowth = 32 << 20

// TestHostileReceivers runs eleven hostile receivers, one of which redirects to a forbidden
// address. A healthy receiver is notified in time while the others hold their requests
// open. The server follows no redirect, and its memory does not grow.
func TestHostileReceivers(t *testing.T) {
	t.Parallel()
	inner, connections := countConnections(t)
	stop := make(chan struct{})
	hostile := map[string]http.HandlerFunc{
		"/hangs": func(_ http.ResponseWriter, r *http.Request) { hang(r, stop) },
		"/drips": func(w http.ResponseWriter, r *http.Request) { writeSlowly(w, r, stop) },
		"/floods": func(w http.ResponseWriter, _ *http.Request) {
			writeZeros(w, 512<<20)
		},
		"/bombs": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(gzipBomb())
		},
		"/headers": func(w http.ResponseWriter, _ *http.Request) {
			for i := range 5000 {
				w.Header().Set(fmt.Sprintf("X-Flood-%d", i), strings.Repeat("a", 1000))
			}
		},
		"/resets": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"/redirects": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, inner+"/admin", http.StatusTemporaryRedirect)
		},
	}
	authority := newCertificateAuthority(t)
	valid := authority.certificate(t, "127.0.0.1", time.Now().Add(time.Hour))
	received := make(chan string, 1000)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		received <- r.URL.Path
		if answer := hostile[r.URL.Path]; answer != nil {
			answer(w, r)
		}
	})
	receiver := serveTLS(t, handler, &tls.Config{Certificates: []tls.Certificate{valid}})
	t.Cleanup(func() { close(stop) }) // before the receiver waits for its handlers
	urls := map[string]string{}
	for path := range hostile {
		urls[path] = receiver + path
	}
	var untrustedRequests atomic.Int32
	served := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { untrustedRequests.Add(1) })
	urls["expired"] = serveTLS(t, served, &tls.Config{Certificates: []tls.Certificate{authority.certificate(t, "127.0.0.1", time.Now().Add(-time.Hour))}})
	urls["another's"] = serveTLS(t, served, &tls.Config{Certificates: []tls.Certificate{authority.certificate(t, "127.0.0.2", time.Now().Add(time.Hour))}})
	urls["nobody's"] = serveTLS(t, served, &tls.Config{Certificates: []tls.Certificate{newCertificateAuthority(t).certificate(t, "127.0.0.1", time.Now().Add(time.Hour))}})
	urls["old"] = serveTLS(t, served, &tls.Config{Certificates: []tls.Certificate{valid}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})

	server := testserver.Start(t, "SSL_CERT_FILE="+authority.file, "AGENTMARKET_ALLOW_NETWORKS=127.0.0.0/8", "AGENTMARKET_STARTING_CREDITS=1000",
		"AGENTMARKET_WEBHOOK_TIMEOUT=5s", "AGENTMARKET_WEBHOOK_RETRIES=100ms,1h")
	agents := map[string]testserver.Agent{}
	for name, url := range urls {
		agents[name] = registerAgent(server, url, "hostile")
	}
	healthy := registerAgent(server, receiver+"/well", "well")
	poster := registerAgent(server, "")
	server.PostTask(poster.Key, "well") // once, so that caches and pools are warm before memory is measured
	waitForAttempts(t, server, healthy.Key, 1)
	testutil.Receive(t, "a delivery", received)
	before, _ := server.MemoryUsage()

	const rounds = 4
	for range rounds {
		server.PostTask(poster.Key, "hostile")
	}
	for seen := map[string]bool{}; len(seen) < len(hostile); {
		seen[testutil.Receive(t, "a delivery", received)] = true
	}
	start := time.Now()
	server.PostTask(poster.Key, "well")
	for path := ""; path != "/well"; {
		select {
		case path = <-received:
		case <-time.After(testutil.Timeout):
			t.Fatal("the healthy receiver is not notified")
		}
	}
	latency := time.Since(start)
	if trusttest.Scale(0, 1, 1) > 0 && latency > time.Second { // other tests running at the same time distort it
		t.Errorf("notified after %s, want a second at most", latency)
	}

	for name, want := range map[string]string{
		"/hangs": "0 the request timed out", "/drips": "0 the request timed out", "/floods": "200", "/bombs": "200", "/headers": "0 the connection failed",
		"/resets": "0 the connection failed", "/redirects": "307 endpoint returned status 307; redirects are not followed",
		"expired": "0 the TLS certificate is not valid", "another's": "0 the TLS certificate is not valid", "nobody's": "0 the TLS certificate is not valid",
		"old": "0 the connection failed",
	} {
		for _, d := range waitForAttempts(t, server, agents[name].Key, rounds) {
			if !strings.Contains(d.summary(), "; 1: "+want) {
				t.Errorf("%s: %q, want %q for the first attempt", name, d.summary(), want)
			}
		}
	}
	_, most := server.MemoryUsage()
	if most-before > maxMemoryGrowth {
		t.Errorf("the server's memory grew from %d to %d KiB, by more than %d MiB", before>>10, most>>10, maxMemoryGrowth>>20)
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("%d connections to the target of the redirect", n)
	}
	if n := untrustedRequests.Load(); n != 0 {
		t.Errorf("%d requests over invalid TLS", n)
	}
	trusttest.Report(t, "hostile", "with %d hostile receivers a healthy one is notified after %s; memory grows by %.1f MiB; 0 connections to targets of redirects, 0 requests over invalid TLS",
		len(urls), latency.Round(time.Millisecond), float64(most-before)/(1<<20))
}

// hang does not respond until the server gives up.
func hang(r *http.Request, stop <-chan struct{}) {
	select {
	case <-r.Context().Done():
	case <-stop:
	}
}

// writeSlowly sends a byte now and then.
func writeSlowly(w http.ResponseWriter, r *http.Request, stop <-chan struct{}) {
	ticks := time.NewTicker(50 * time.Millisecond)
	defer ticks.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-stop:
			return
		case <-ticks.C:
			if _, err := w.Write([]byte(".")); err != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
		}
	}
}

// writeZeros sends up to size bytes.
func writeZeros(w io.Writer, size int) {
	chunk := make([]byte, 1<<20)
	for range size / len(chunk) {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// gzipBomb returns 64 KiB that decompress to 64 MiB.
func gzipBomb() []byte {
	var packed bytes.Buffer
	writer := gzip.NewWriter(&packed)
	writeZeros(writer, 64<<20)
	_ = writer.Close() // into memory
	return packed.Bytes()
}

// waitForAttempts waits until every delivery of an agent has been attempted.
func waitForAttempts(t *testing.T, server *testserver.Server, key string, n int) []deliveryRecord {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	timeout := time.After(testutil.Timeout)
	for {
		deliveries := listDeliveries(t, server, key)
		done := 0
		for _, d := range deliveries {
			if d.AttemptCount > 0 {
				done++
			}
		}
		if done == n {
			return deliveries
		}
		select {
		case <-ticker.C:
		case <-timeout:
			t.Fatalf("of %d deliveries %d were attempted: %+v", n, done, deliveries)
		}
	}
}

// serveTLS serves with a TLS configuration until the test ends.
func serveTLS(t *testing.T, handler http.Handler, config *tls.Config) (url string) {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.TLS = config
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}

type certificateAuthority struct {
	file string // its certificate
	root *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCertificateAuthority(t *testing.T) *certificateAuthority {
	t.Helper()
	a := &certificateAuthority{root: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(2 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}}
	a.key = newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, a.root, a.root, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	a.file = filepath.Join(t.TempDir(), "authority.pem")
	if err := os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

// certificate returns a certificate for an address that expires at a time.
func (a *certificateAuthority) certificate(t *testing.T, address string, ends time.Time) tls.Certificate {
	t.Helper()
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: address}, IPAddresses: []net.IP{net.ParseIP(address)},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: ends,
	}, a.root, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

package examples_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

// TestEndpoint: the agent is hired, does the work and earns nine tenths of 15, rounded
// down. It rejects requests without a valid signature.
func TestEndpoint(t *testing.T) {
	t.Parallel()
	run := pythonExample("endpoint/endpoint.py")(t)
	certificate, key, client := newCertificate(t)
	server := testserver.Start(t, "SSL_CERT_FILE="+certificate, "AGENTMARKET_ALLOW_NETWORKS=127.0.0.0/8")
	agent := server.Register("Shouter", map[string]any{"endpointUrl": "https://agent.example.com/"})
	example := startExample(t, run, "AGENTMARKET_WEBHOOK_SECRET="+agent.WebhookSecret, "PORT=0", "TLS_CERT="+certificate, "TLS_KEY="+key)
	address := example.listenAddress(t)
	var updated struct{}
	if err := server.Query(agent.Key, `mutation($url: URL!) { updateAgent(input: {endpointUrl: $url}) { agent { id } } }`, map[string]any{"url": address + "/"}, &updated); err != nil {
		t.Fatal(err)
	}
	poster := server.Register("Poster", nil)
	var data struct {
		Execute struct {
			Result string
			Task   struct{ ID string }
		}
	}
	err := server.Query(poster.Key, `mutation($id: ID!) { execute(input: {agentId: $id, taskDescription: "hello", budget: 15}) { result task { id } } }`, map[string]any{"id": agent.ID}, &data)
	if err != nil || data.Execute.Result != "HELLO" {
		t.Errorf("the result is %q (%v)", data.Execute.Result, err)
	}
	if got, want := example.nextLine(t), data.Execute.Task.ID+": hired for 15 credits"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, text := server.Do(http.MethodGet, "/api/wallet", agent.Key, ""); !strings.Contains(text, `"balance":113`) {
		t.Errorf("the wallet is %s", text)
	}
	answer, err := client.Post(address+"/", "application/json", strings.NewReader(`{"task":{"id":"1","description":"work","budget":2}}`))
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("an unsigned call: status %d", answer.StatusCode)
	}
	server.Verify()
}

// newCertificate writes a certificate for 127.0.0.1 and its key to files and returns a
// client that trusts it.
func newCertificate(t *testing.T) (certificate, key string, client *http.Client) {
	t.Helper()
	lender := httptest.NewTLSServer(nil)
	lender.Close()
	private, err := x509.MarshalPKCS8PrivateKey(lender.TLS.Certificates[0].PrivateKey)
	dir, roots := t.TempDir(), x509.NewCertPool()
	certificate, key = filepath.Join(dir, "certificate.pem"), filepath.Join(dir, "key.pem")
	err = errors.Join(err,
		os.WriteFile(certificate, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: lender.Certificate().Raw}), 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(lender.Certificate())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	return certificate, key, &http.Client{Transport: transport, Timeout: testutil.Timeout}
}

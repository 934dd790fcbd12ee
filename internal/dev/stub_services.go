package dev

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"agentmarket.space/server/internal/client"
	"agentmarket.space/server/internal/outbound"
)

const (
	// timestampTolerance is how old a request may be whose signature is taken, or how early: as
	// Standard Webhooks recommends.
	timestampTolerance = 5 * time.Minute
	// maxShownBytes is how much of a body is printed.
	maxShownBytes = 400
	// maxBodyBytes is how much of one is read: a task's description has 50 000 characters.
	maxBodyBytes = 4 << 20
)

// stubServices is what the market calls: addresses of agents over TLS, and Claude.
type stubServices struct {
	url, claudeURL string
	roots          *x509.CertPool // that certify url

	console *console
	mu      sync.Mutex
	secrets map[string]string // by the name in the address
	servers []*http.Server
	serving sync.WaitGroup
}

// startStubServices serves on ports of its own until close.
func startStubServices(ctx context.Context, console *console) (*stubServices, error) {
	o := &stubServices{console: console, secrets: map[string]string{}}
	certificate, roots, err := selfSignedCertificate()
	if err != nil {
		return nil, err
	}
	o.roots = roots
	mux := http.NewServeMux()
	mux.HandleFunc("POST /hooks/{name}", o.receiveWebhook)
	mux.HandleFunc("POST /echo", o.echo)
	mux.HandleFunc("/to/{port}/{rest...}", o.forward)
	agents, err := o.serve(ctx, mux, certificate)
	if err != nil {
		return nil, err
	}
	claude, err := o.serve(ctx, newFakeClaude(), nil)
	if err != nil {
		o.close()
		return nil, err
	}
	o.url, o.claudeURL = "https://"+agents, "http://"+claude
	return o, nil
}

// setSecret has what goes to a name verified with a secret.
func (o *stubServices) setSecret(name, secret string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.secrets[name] = secret
}

// serve serves on a free port and returns its address.
func (o *stubServices) serve(ctx context.Context, handler http.Handler, certificate *tls.Certificate) (string, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	o.servers = append(o.servers, server)
	if certificate != nil {
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{*certificate}, MinVersion: tls.VersionTLS12})
	}
	o.serving.Go(func() { _ = server.Serve(listener) }) // until it is closed
	return listener.Addr().String(), nil
}

// close ends what is under way.
func (o *stubServices) close() {
	for _, server := range o.servers {
		_ = server.Close()
	}
	o.serving.Wait()
}

// receiveWebhook prints a delivery, its headers and whether its signature is right.
func (o *stubServices) receiveWebhook(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	if err != nil {
		return // it was cut off
	}
	name := r.PathValue("name")
	verdict, status := o.checkSignature(name, r, body), http.StatusNoContent
	if verdict == signatureInvalid {
		status = http.StatusUnauthorized
	}
	o.printRequest(name, verdict, r.Header, body)
	w.WriteHeader(status)
}

// echo is the endpoint of an agent: the work is its own result.
func (o *stubServices) echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	var call struct{ Task struct{ Description string } }
	if err != nil || json.Unmarshal(body, &call) != nil || o.checkSignature("echo", r, body) != signatureValid {
		http.Error(w, "only the market may hire me", http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"result": call.Task.Description}) // an error means that the market has hung up
}

// forward hands a request on to a port of this machine, where a program under
// development need not speak TLS.
func (o *stubServices) forward(w http.ResponseWriter, r *http.Request) {
	port, err := strconv.ParseUint(r.PathValue("port"), 10, 16)
	if err != nil || port == 0 {
		http.Error(w, "the address is like /to/3000/hook", http.StatusNotFound)
		return
	}
	target := &url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", strconv.FormatUint(port, 10))}
	event := client.SanitizeLine(cmp.Or(r.Header.Get("X-AgentMarket-Event"), r.Method))
	(&httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Path, p.Out.URL.RawPath = "/"+r.PathValue("rest"), ""
			p.SetURL(target)
		},
		ModifyResponse: func(answer *http.Response) error {
			o.console.printf("%s to %s/%s: %s", event, target.Host, client.SanitizeLine(r.PathValue("rest")), client.SanitizeLine(answer.Status))
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			o.console.printf("%s to %s: %v", event, target.Host, err)
			w.WriteHeader(http.StatusBadGateway)
		},
	}).ServeHTTP(w, r)
}

// What is said of a signature.
const (
	signatureValid     = "signature verified"
	signatureInvalid   = "signature NOT right"
	signatureUnchecked = "signature not checked: add ?secret=whsec_… to the address"
)

// checkSignature says what a signature is worth. Both headers must be right, and the time.
func (o *stubServices) checkSignature(name string, r *http.Request, body []byte) string {
	o.mu.Lock()
	secret := cmp.Or(o.secrets[name], strings.ReplaceAll(r.FormValue("secret"), " ", "+")) // as it was pasted: a plus is read as a blank
	o.mu.Unlock()
	if secret == "" {
		return signatureUnchecked
	}
	seconds, err := strconv.ParseInt(r.Header.Get("webhook-timestamp"), 10, 64)
	standard, signErr := outbound.SignStandard(secret, r.Header.Get("webhook-id"), seconds, body)
	age := time.Since(time.Unix(seconds, 0)) //nolint:forbidigo // as every receiver, it goes by the true time
	if errors.Join(err, signErr) != nil || age.Abs() > timestampTolerance {
		return signatureInvalid
	}
	same := func(given string) bool { return hmac.Equal([]byte(given), []byte(standard)) }
	documented := hmac.Equal([]byte(r.Header.Get("X-AgentMarket-Signature")), []byte(outbound.Sign(secret, body)))
	if !documented || !slices.ContainsFunc(strings.Fields(r.Header.Get("webhook-signature")), same) {
		return signatureInvalid
	}
	return signatureValid
}

// printRequest prints a request. What strangers wrote does not move the cursor.
func (o *stubServices) printRequest(name, verdict string, header http.Header, body []byte) {
	var lines strings.Builder
	fmt.Fprintf(&lines, "webhook %s to %s: %s", client.SanitizeLine(header.Get("X-AgentMarket-Event")), client.SanitizeLine(name), verdict)
	for _, name := range slices.Sorted(maps.Keys(header)) {
		fmt.Fprintf(&lines, "\n    %s: %s", name, client.SanitizeLine(header.Get(name)))
	}
	shown := string(bytes.ToValidUTF8(body[:min(len(body), maxShownBytes)], nil))
	if len(body) > maxShownBytes {
		shown += "…"
	}
	fmt.Fprintf(&lines, "\n    %s", client.SanitizeLine(shown))
	o.console.printf("%s", lines.String())
}

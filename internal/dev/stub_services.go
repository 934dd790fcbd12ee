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
	// timestampTolerance is the maximum difference between the timestamp of a request
	// and the current time, as recommended by Standard Webhooks.
	timestampTolerance = 5 * time.Minute
	// maxShownBytes bounds the printed part of a body.
	maxShownBytes = 400
	// maxBodyBytes bounds a request body. A description has at most 50,000 characters.
	maxBodyBytes = 4 << 20
)

// stubServices are the external services that the server calls: endpoints and
// webhook receivers over TLS, and the Claude API.
type stubServices struct {
	url, claudeURL string
	roots          *x509.CertPool // trust the certificate of url

	console *console
	mu      sync.Mutex
	secrets map[string]string // by the name in the path
	servers []*http.Server
	serving sync.WaitGroup
}

// startStubServices starts the services on free ports. They run until close.
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
	agentsAddr, err := o.serve(ctx, mux, certificate)
	if err != nil {
		return nil, err
	}
	claudeAddr, err := o.serve(ctx, newFakeClaude(), nil)
	if err != nil {
		o.close()
		return nil, err
	}
	o.url, o.claudeURL = "https://"+agentsAddr, "http://"+claudeAddr
	return o, nil
}

// setSecret sets the webhook secret of the receiver /hooks/NAME or of /echo.
func (o *stubServices) setSecret(name, secret string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.secrets[name] = secret
}

// serve starts a server on a free port and returns its address.
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
	o.serving.Go(func() { _ = server.Serve(listener) }) // until close
	return listener.Addr().String(), nil
}

// close stops all servers.
func (o *stubServices) close() {
	for _, server := range o.servers {
		_ = server.Close()
	}
	o.serving.Wait()
}

// receiveWebhook prints a delivery and the result of its signature check.
func (o *stubServices) receiveWebhook(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	if err != nil {
		return // incomplete request
	}
	name := r.PathValue("name")
	result, status := o.checkSignature(name, r, body), http.StatusNoContent
	if result == signatureInvalid {
		status = http.StatusUnauthorized
	}
	o.printRequest(name, result, r.Header, body)
	w.WriteHeader(status)
}

// echo is the endpoint of the Echo agent. It returns the description as the result.
func (o *stubServices) echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	var call struct{ Task struct{ Description string } }
	if err != nil || json.Unmarshal(body, &call) != nil || o.checkSignature("echo", r, body) != signatureValid {
		http.Error(w, "invalid signature", http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"result": call.Task.Description}) // an error means that the server closed the connection
}

// forward proxies a request to a port of this machine, where a program under
// development listens on plain HTTP.
func (o *stubServices) forward(w http.ResponseWriter, r *http.Request) {
	port, err := strconv.ParseUint(r.PathValue("port"), 10, 16)
	if err != nil || port == 0 {
		http.Error(w, "the path must be like /to/3000/hook", http.StatusNotFound)
		return
	}
	target := &url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", strconv.FormatUint(port, 10))}
	event := client.SanitizeLine(cmp.Or(r.Header.Get("X-AgentMarket-Event"), r.Method))
	(&httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Path, p.Out.URL.RawPath = "/"+r.PathValue("rest"), ""
			p.SetURL(target)
		},
		ModifyResponse: func(response *http.Response) error {
			o.console.printf("%s to %s/%s: %s", event, target.Host, client.SanitizeLine(r.PathValue("rest")), client.SanitizeLine(response.Status))
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			o.console.printf("%s to %s: %v", event, target.Host, err)
			w.WriteHeader(http.StatusBadGateway)
		},
	}).ServeHTTP(w, r)
}

// The results of a signature check.
const (
	signatureValid     = "signature verified"
	signatureInvalid   = "signature INVALID"
	signatureUnchecked = "signature not checked: add ?secret=whsec_… to the URL"
)

// checkSignature checks both signature headers and the timestamp of a request.
func (o *stubServices) checkSignature(name string, r *http.Request, body []byte) string {
	o.mu.Lock()
	secret := cmp.Or(o.secrets[name], strings.ReplaceAll(r.FormValue("secret"), " ", "+")) // FormValue decodes an unescaped + as a space
	o.mu.Unlock()
	if secret == "" {
		return signatureUnchecked
	}
	seconds, err := strconv.ParseInt(r.Header.Get("webhook-timestamp"), 10, 64)
	standard, signErr := outbound.SignStandardWebhook(secret, r.Header.Get("webhook-id"), seconds, body)
	age := time.Since(time.Unix(seconds, 0)) //nolint:forbidigo // receivers use the system time
	if errors.Join(err, signErr) != nil || age.Abs() > timestampTolerance {
		return signatureInvalid
	}
	matches := func(signature string) bool { return hmac.Equal([]byte(signature), []byte(standard)) }
	legacyOK := hmac.Equal([]byte(r.Header.Get("X-AgentMarket-Signature")), []byte(outbound.Sign(secret, body)))
	if !legacyOK || !slices.ContainsFunc(strings.Fields(r.Header.Get("webhook-signature")), matches) {
		return signatureInvalid
	}
	return signatureValid
}

// printRequest prints the headers and the body of a request, without control
// characters.
func (o *stubServices) printRequest(name, result string, header http.Header, body []byte) {
	var lines strings.Builder
	fmt.Fprintf(&lines, "webhook %s to %s: %s", client.SanitizeLine(header.Get("X-AgentMarket-Event")), client.SanitizeLine(name), result)
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

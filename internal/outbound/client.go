package outbound

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"code.dny.dev/ssrf"
)

const (
	connectTimeout = 5 * time.Second
	maxHeaderBytes = 64 << 10
	// defaultMaxResponse is the number of bytes read from a response body.
	defaultMaxResponse = 16 << 10
)

// ErrForbiddenAddress is the cause of an error for an address that is not public or a
// port that is not allowed.
var ErrForbiddenAddress = errors.New("the address is not public")

// Options configures a Client. The zero value allows port 443 of public addresses.
type Options struct {
	AllowNetworks []netip.Prefix // private networks that are allowed, on any port
	AllowPorts    []uint16       // on public addresses; default 443
	UserAgent     string
	RootCAs       *x509.CertPool // default: the certificates of the system
	Resolver      *net.Resolver  // default: net.DefaultResolver
}

// Client sends requests to URLs that third parties provide. It is safe for concurrent
// use.
type Client struct {
	http        *http.Client
	httpOnce    *http.Client // uses each connection for one request
	networks    []netip.Prefix
	ports       []uint16
	resolver    *net.Resolver
	userAgent   string
	maxResponse int64
}

// New returns a Client.
func New(o Options) *Client {
	if len(o.AllowPorts) == 0 {
		o.AllowPorts = []uint16{443}
	}
	c := &Client{networks: o.AllowNetworks, ports: o.AllowPorts, resolver: cmp.Or(o.Resolver, net.DefaultResolver), userAgent: o.UserAgent, maxResponse: defaultMaxResponse}
	dialer := &net.Dialer{Timeout: connectTimeout, Resolver: o.Resolver, Control: c.checkDial(ssrf.New(ssrf.WithPorts(o.AllowPorts...)))}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs, NextProtos: []string{"h2", "http/1.1"}}
	transport := &http.Transport{
		DialContext:            dialer.DialContext,
		DialTLSContext:         tlsDialer{dialer, config, connectTimeout}.dial,
		MaxResponseHeaderBytes: maxHeaderBytes,
		MaxIdleConns:           100,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        30 * time.Second,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
	}
	once := transport.Clone()
	once.DisableKeepAlives = true
	keepRedirects := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.http = &http.Client{CheckRedirect: keepRedirects, Transport: transport}
	c.httpOnce = &http.Client{CheckRedirect: keepRedirects, Transport: once}
	return c
}

// WithMaxResponse returns a copy of c that reads up to limit bytes of a response body.
// It shares the connections of c.
func (c *Client) WithMaxResponse(limit int64) *Client {
	clone := *c
	clone.maxResponse = limit
	return &clone
}

// checkDial returns the dialer's control function, which checks every address after name
// resolution and before the connection.
func (c *Client) checkDial(public *ssrf.Guardian) func(network, address string, _ syscall.RawConn) error {
	return func(network, address string, conn syscall.RawConn) error {
		target, err := netip.ParseAddrPort(address)
		if err == nil && c.isAllowed(target.Addr()) {
			return nil
		}
		if err := public.Safe(network, address, conn); err != nil {
			return fmt.Errorf("%w: %w", ErrForbiddenAddress, err)
		}
		return nil
	}
}

// isAllowed reports whether ip is in one of the allowed private networks.
func (c *Client) isAllowed(ip netip.Addr) bool {
	ip = ip.Unmap()
	return slices.ContainsFunc(c.networks, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// Response is an HTTP response. Body is truncated to the limit of the client: if it
// has exactly that length, the response may be longer.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Post sends body and returns the response with any status. The deadline of ctx
// includes reading the response. Error messages are short and safe to show to the
// owner of the URL. Post sends the request again when a connection that was kept from an
// earlier request breaks before the first byte of the response, so the receiver may get
// it twice.
func (c *Client) Post(ctx context.Context, url string, header http.Header, body []byte) (*Response, error) {
	request, err := c.newRequest(ctx, url, header, body)
	if err != nil {
		return nil, err
	}
	request.Header["X-Idempotency-Key"] = []string{} // allows the transport to repeat the request; it is not sent
	return c.do(c.http, request)
}

// PostOnce is Post for a request that must not arrive twice. It uses a new connection,
// because a kept one can be closed by the receiver at any time: nobody would know whether
// the request arrived.
func (c *Client) PostOnce(ctx context.Context, url string, header http.Header, body []byte) (*Response, error) {
	request, err := c.newRequest(ctx, url, header, body)
	if err != nil {
		return nil, err
	}
	return c.do(c.httpOnce, request)
}

func (c *Client) newRequest(ctx context.Context, url string, header http.Header, body []byte) (*http.Request, error) {
	ctx = context.WithValue(ctx, requestContextKey{}, ctx)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, encodeURL(url), bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("the URL is not valid")
	}
	if request.URL.Scheme != "https" {
		return nil, errors.New("the URL must use https")
	}
	request.Header = header.Clone()
	if request.Header == nil {
		request.Header = http.Header{}
	}
	if c.userAgent != "" {
		request.Header.Set("User-Agent", c.userAgent)
	}
	return request, nil
}

// do sends a request and reads the response.
func (c *Client) do(client *http.Client, request *http.Request) (*Response, error) {
	ctx := request.Context()
	response, err := client.Do(request)
	if err != nil {
		return nil, describeError(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode == http.StatusSwitchingProtocols { // reading the new protocol would ignore the deadline
		return &Response{Status: response.StatusCode, Header: response.Header}, nil
	}
	content, err := io.ReadAll(io.LimitReader(response.Body, c.maxResponse))
	if err == nil {
		err = ctx.Err() // a server may end its response early when ctx closes the connection
	}
	if err != nil {
		return nil, describeError(err)
	}
	return &Response{Status: response.StatusCode, Header: response.Header, Body: content}, nil
}

// requestError is the error of a request. Its message does not contain the cause,
// which may name internal addresses.
type requestError struct {
	message string
	cause   error
}

func (e *requestError) Error() string { return e.message }
func (e *requestError) Unwrap() error { return e.cause }

// describeError returns err as a requestError with a short message.
func describeError(err error) error {
	var (
		certificateErr *tls.CertificateVerificationError
		recordErr      tls.RecordHeaderError
		dnsErr         *net.DNSError
		netErr         net.Error
	)
	message := "the connection failed"
	switch {
	case errors.Is(err, ErrForbiddenAddress):
		message = "the address is not public"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		message = "the request timed out"
	case errors.Is(err, context.Canceled):
		message = "the request was canceled"
	case errors.As(err, &certificateErr):
		message = "the TLS certificate is not valid"
	case errors.As(err, &recordErr), errors.Is(err, http.ErrSchemeMismatch):
		message = "the server does not speak TLS"
	case errors.As(err, &dnsErr):
		message = "the host name cannot be resolved"
	case errors.Is(err, syscall.ECONNREFUSED):
		message = "the connection was refused"
	}
	return &requestError{message: message, cause: err}
}

// CloseIdleConnections closes the connections that are kept for further requests.
func (c *Client) CloseIdleConnections() { c.http.CloseIdleConnections() }

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
	// defaultMaxResponse is how much of an answer's body is read.
	defaultMaxResponse = 16 << 10
)

// ErrForbiddenAddress says that an address is not public, or that its port may
// not be used.
var ErrForbiddenAddress = errors.New("the address is not public")

// Options are what a client may do. The zero value calls port 443 of public
// addresses.
type Options struct {
	AllowNetworks []netip.Prefix // private networks that may be called, on any port
	AllowPorts    []uint16       // on public addresses; 443 when empty
	UserAgent     string
	RootCAs       *x509.CertPool // whom to believe; the system's when nil
	Resolver      *net.Resolver  // how names are looked up; as the system does when nil
}

// Client calls strangers. It is safe for concurrent use.
type Client struct {
	http        *http.Client
	networks    []netip.Prefix
	ports       []uint16
	resolver    *net.Resolver
	userAgent   string
	maxResponse int64
}

// New returns a client.
func New(o Options) *Client {
	if len(o.AllowPorts) == 0 {
		o.AllowPorts = []uint16{443}
	}
	c := &Client{networks: o.AllowNetworks, ports: o.AllowPorts, resolver: cmp.Or(o.Resolver, net.DefaultResolver), userAgent: o.UserAgent, maxResponse: defaultMaxResponse}
	dialer := &net.Dialer{Timeout: connectTimeout, Resolver: o.Resolver, Control: c.guard(ssrf.New(ssrf.WithPorts(o.AllowPorts...)))}
	c.http = &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
			TLSHandshakeTimeout:    connectTimeout,
			MaxResponseHeaderBytes: maxHeaderBytes,
			MaxIdleConns:           100,
			MaxIdleConnsPerHost:    4,
			IdleConnTimeout:        30 * time.Second,
			DisableCompression:     true,
			ForceAttemptHTTP2:      true,
		},
	}
	return c
}

// WithMaxResponse returns the same client that reads so many bytes of an answer.
func (c *Client) WithMaxResponse(limit int64) *Client {
	other := *c
	other.maxResponse = limit
	return &other
}

// guard is called with every address that is dialled, after names were resolved.
func (c *Client) guard(public *ssrf.Guardian) func(network, address string, _ syscall.RawConn) error {
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

// isAllowed reports whether the address is in a network that may be called though
// it is private.
func (c *Client) isAllowed(ip netip.Addr) bool {
	ip = ip.Unmap()
	return slices.ContainsFunc(c.networks, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// Response is an answer. Body is what was read of it: when it is as long as the
// client reads, more may have followed.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Post sends a body and returns the answer, whatever its status. The context's
// deadline spans all of it, reading included. An error is a short text that
// says what went wrong, fit to be shown to the owner of the address.
func (c *Client) Post(ctx context.Context, url string, header http.Header, body []byte) (*Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("the address cannot be called")
	}
	if request.URL.Scheme != "https" {
		return nil, errors.New("the address must be https")
	}
	request.Header = header.Clone()
	if c.userAgent != "" {
		request.Header.Set("User-Agent", c.userAgent)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, describeError(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode == http.StatusSwitchingProtocols { // what follows is no body, and reading it knows no deadline
		return &Response{Status: response.StatusCode, Header: response.Header}, nil
	}
	read, err := io.ReadAll(io.LimitReader(response.Body, c.maxResponse))
	if err == nil {
		err = ctx.Err() // a server that sees us hang up ends its answer, which then looks whole
	}
	if err != nil {
		return nil, describeError(err)
	}
	return &Response{Status: response.StatusCode, Header: response.Header, Body: read}, nil
}

// callError is what went wrong in words for the owner of an address. It wraps the
// cause for programs, and does not show it: it may name addresses of the inside.
type callError struct {
	message string
	cause   error
}

func (f *callError) Error() string { return f.message }
func (f *callError) Unwrap() error { return f.cause }

// describeError says in a few words why a call failed.
func describeError(err error) error {
	var (
		certificate *tls.CertificateVerificationError
		record      tls.RecordHeaderError
		dns         *net.DNSError
		timeout     net.Error
	)
	text := "the connection broke"
	switch {
	case errors.Is(err, ErrForbiddenAddress):
		text = "the address is not public"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		text = "no answer in time"
	case errors.Is(err, context.Canceled):
		text = "the call was cut off"
	case errors.As(err, &certificate):
		text = "the TLS certificate is not valid"
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		text = "it does not speak TLS"
	case errors.As(err, &dns):
		text = "the name cannot be resolved"
	case errors.Is(err, syscall.ECONNREFUSED):
		text = "the connection was refused"
	}
	return &callError{message: text, cause: err}
}

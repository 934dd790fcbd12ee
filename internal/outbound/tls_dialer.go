package outbound

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"
)

// requestContextKey is the key of the context of a request, as a value of itself.
// [http.Transport] dials with a context that has the values of the request's context but
// not its deadline: the connection could serve a later request.
type requestContextKey struct{}

// tlsDialer makes TLS connections. Each ends with the request that it was started for, if
// it is not ready by then: a receiver that delays the handshake cannot hold it for longer.
type tlsDialer struct {
	dialer           *net.Dialer
	config           *tls.Config
	handshakeTimeout time.Duration
}

// dial connects to address and completes the handshake.
func (d tlsDialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if request, ok := ctx.Value(requestContextKey{}).(context.Context); ok {
		ended, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(request, cancel)() //nolint:contextcheck // it is the context of the request
		ctx = ended
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	plain, err := d.dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	config := d.config.Clone()
	config.ServerName = host
	conn := tls.Client(plain, config)
	handshakeCtx, cancel := context.WithTimeout(ctx, d.handshakeTimeout)
	defer cancel()
	if err := conn.HandshakeContext(handshakeCtx); err != nil {
		return nil, errors.Join(err, plain.Close())
	}
	return conn, nil
}

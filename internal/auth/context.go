package auth

import (
	"context"
	"net/netip"
	"sync/atomic"

	"agentmarket.space/server/models"
)

// Actor is the agent behind a request.
type Actor struct {
	AgentID string
	KeyHash KeyHash // of the key it came with
}

// Request is what a verb may want to know of the request it serves.
type Request struct {
	ID             string // of the request, in logs and errors
	Address        string // the client's IP address
	IdempotencyKey string // empty when the client sent none
	// Replayed is set when the answer was kept from an earlier request.
	Replayed atomic.Bool
}

// Network is the client's address, or the /64 of an IPv6 one: a single host has
// all of that to send from (RFC 4291 section 2.5.1, RFC 6177 section 2).
func (r *Request) Network() string {
	ip, err := netip.ParseAddr(r.Address)
	if err != nil {
		return r.Address
	}
	if ip = ip.Unmap(); ip.Is4() {
		return ip.String()
	}
	return netip.PrefixFrom(ip.WithZone(""), 64).Masked().String()
}

type (
	actorKey   struct{}
	requestKey struct{}
)

// WithActor returns a context with the caller in it.
func WithActor(ctx context.Context, actor Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// WithoutActor returns a context without a caller.
func WithoutActor(ctx context.Context) context.Context {
	return context.WithValue(ctx, actorKey{}, nil)
}

// FromContext returns the caller; ok is false for an anonymous one.
func FromContext(ctx context.Context) (actor Actor, ok bool) {
	actor, ok = ctx.Value(actorKey{}).(Actor)
	return actor, ok
}

// Require returns the caller, or UNAUTHENTICATED for an anonymous one.
func Require(ctx context.Context) (Actor, error) {
	actor, ok := FromContext(ctx)
	if !ok {
		return Actor{}, models.Errorf(models.Unauthenticated, "an API key is needed: send it as X-API-Key")
	}
	return actor, nil
}

// WithRequest returns a context that knows the request.
func WithRequest(ctx context.Context, r *Request) context.Context {
	return context.WithValue(ctx, requestKey{}, r)
}

// RequestFrom returns the request, an empty one outside of any.
func RequestFrom(ctx context.Context) *Request {
	if r, ok := ctx.Value(requestKey{}).(*Request); ok {
		return r
	}
	return &Request{}
}

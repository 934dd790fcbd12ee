package auth

import (
	"context"
	"net/netip"
	"sync/atomic"

	"agentmarket.space/server/models"
)

// Actor is the agent that makes a request.
type Actor struct {
	AgentID string
	KeyHash KeyHash // of the API key in the request
	// Replaced is true if the key was revoked. See [WithReplaced].
	Replaced bool
}

// Request describes the request that an operation serves.
type Request struct {
	ID             string // as in logs and errors
	Address        string // IP address of the client
	IdempotencyKey string // empty if the client sent none
	// Replayed is true if the response was stored by an earlier request.
	Replayed atomic.Bool
}

// Network returns the client's IPv4 address, or the /64 network of its IPv6
// address. A single host can use all addresses of a /64 (RFC 4291 section 2.5.1,
// RFC 6177 section 2).
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
	actorKey      struct{}
	requestKey    struct{}
	replacedActor Actor
)

// WithActor returns a context that carries the caller.
func WithActor(ctx context.Context, actor Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// WithReplaced returns a context for a request with an API key that has been replaced. It
// has no caller: [FromContext] returns false. Only the operation that returns the new key
// again may use the actor.
func WithReplaced(ctx context.Context, actor Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, replacedActor(actor))
}

// ReplacedFrom returns the actor of [WithReplaced].
func ReplacedFrom(ctx context.Context) (actor Actor, ok bool) {
	replaced, ok := ctx.Value(actorKey{}).(replacedActor)
	return Actor(replaced), ok
}

// WithoutActor returns a context without a caller.
func WithoutActor(ctx context.Context) context.Context {
	return context.WithValue(ctx, actorKey{}, nil)
}

// FromContext returns the caller. ok is false for an anonymous request.
func FromContext(ctx context.Context) (actor Actor, ok bool) {
	actor, ok = ctx.Value(actorKey{}).(Actor)
	return actor, ok
}

// Require returns the caller. It returns UNAUTHENTICATED for an anonymous request.
func Require(ctx context.Context) (Actor, error) {
	actor, ok := FromContext(ctx)
	if !ok {
		return Actor{}, models.Errorf(models.Unauthenticated, "missing API key: send it in the X-API-Key header")
	}
	return actor, nil
}

// WithRequest returns a context that carries the request.
func WithRequest(ctx context.Context, r *Request) context.Context {
	return context.WithValue(ctx, requestKey{}, r)
}

// RequestFrom returns the request, or an empty one if the context has none.
func RequestFrom(ctx context.Context) *Request {
	if r, ok := ctx.Value(requestKey{}).(*Request); ok {
		return r
	}
	return &Request{}
}

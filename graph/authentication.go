package graph

import (
	"context"
	"encoding/hex"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"

	"agentmarket.space/server/graph/operation"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/tracing"
	"agentmarket.space/server/models"
)

// authenticated implements @authenticated: it rejects anonymous callers.
func authenticated(ctx context.Context, _ any, next graphql.Resolver) (any, error) {
	if _, err := auth.Require(ctx); err != nil {
		return nil, err
	}
	return next(ctx)
}

// connectionInit authenticates a socket with the API key in the payload of its init
// message, or else with that of the handshake request. A replaced key needs the
// idempotencyKey of its replacement in the payload, and can only ask for the new key again.
func connectionInit(keys *auth.Keys, m *market.Market) func(context.Context, map[string]any) (context.Context, error) {
	return func(ctx context.Context, payload map[string]any) (context.Context, error) {
		// Without the handshake's Idempotency-Key, which would apply to every operation.
		handshake := auth.RequestFrom(ctx)
		ctx = auth.WithRequest(tracing.WithoutSpan(ctx), &auth.Request{ID: handshake.ID, Address: handshake.Address})
		actor, hasKey, err := keys.AuthenticatePayload(ctx, payload)
		switch {
		case err != nil && models.CodeOf(err) == models.Unauthenticated:
			return authenticateReplaced(ctx, m, payload, err)
		case err != nil:
			return nil, err
		case hasKey:
			ctx = auth.WithActor(ctx, actor)
		}
		return ctx, nil
	}
}

// authenticateReplaced returns the context of a socket whose payload has a replaced key and
// the idempotencyKey of its replacement. It returns invalidKey for any other payload.
func authenticateReplaced(ctx context.Context, m *market.Market, payload map[string]any, invalidKey error) (context.Context, error) {
	key, err := auth.KeyFromPayload(payload)
	if err != nil {
		return nil, invalidKey
	}
	withKey, err := withIdempotencyKey(ctx, payload)
	if err != nil {
		return nil, invalidKey
	}
	actor, err := m.AuthenticateReplaced(withKey, key)
	if err != nil {
		return nil, err
	}
	return auth.WithReplaced(ctx, actor), nil
}

// isKeyRotation reports whether an operation calls rotateApiKey and nothing else. It is all
// that a replaced API key may do.
func isKeyRotation(o *graphql.OperationContext) bool {
	return o.Operation.Operation == ast.Mutation && countMutations(o) == 1 &&
		operation.RootFieldOf(o.Operation).Name == "rotateApiKey"
}

// apiKeyHash returns the hex hash of the caller's API key, "" for an anonymous caller.
func apiKeyHash(ctx context.Context) string {
	actor, ok := auth.FromContext(ctx)
	if !ok {
		return ""
	}
	return hex.EncodeToString(actor.KeyHash[:])
}

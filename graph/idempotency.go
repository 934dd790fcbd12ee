package graph

import (
	"context"
	"net/http"

	"github.com/99designs/gqlgen/graphql"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/models"
)

// Extensions of a request and of its response. They do for an operation on a WebSocket what
// the headers Idempotency-Key and Idempotency-Replayed do for a request.
const (
	idempotencyKeyExtension = "idempotencyKey"
	replayedExtension       = "idempotencyReplayed"
)

// withIdempotencyKey returns a context with the idempotencyKey of a request's extensions,
// or ctx if there is none. INVALID_INPUT for a key that is not a string or differs from the
// Idempotency-Key header.
func withIdempotencyKey(ctx context.Context, extensions map[string]any) (context.Context, error) {
	value := extensions[idempotencyKeyExtension]
	if value == nil {
		return ctx, nil
	}
	request := auth.RequestFrom(ctx)
	key, ok := value.(string)
	if !ok || request.IdempotencyKey != "" && request.IdempotencyKey != key {
		return nil, models.FieldErrorf(idempotencyKeyExtension, "must be a string, and equal to the Idempotency-Key header if both are sent")
	}
	return auth.WithRequest(ctx, &auth.Request{ID: request.ID, Address: request.Address, IdempotencyKey: key}), nil
}

// markReplayed adds an extension to a response that repeats that of an earlier request, if
// the request has its key in the extensions.
func markReplayed(extensions map[string]any, next graphql.ResponseHandler) graphql.ResponseHandler {
	if extensions[idempotencyKeyExtension] == nil {
		return next
	}
	return func(ctx context.Context) *graphql.Response {
		response := next(ctx)
		if response != nil && auth.RequestFrom(ctx).Replayed.Load() {
			if response.Extensions == nil {
				response.Extensions = map[string]any{}
			}
			response.Extensions[replayedExtension] = true
		}
		return response
	}
}

// setReplayedHeader marks a response that repeats that of an earlier request.
func setReplayedHeader(ctx context.Context, h http.Header) {
	if auth.RequestFrom(ctx).Replayed.Load() {
		h.Set("Idempotency-Replayed", "true")
	}
}

package cache

import (
	"context"
	"slices"

	"github.com/99designs/gqlgen/graphql"

	"agentmarket.space/server/graph/operation"
	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/auth"
)

// statsExtensionKey is the key of an operation's requestInfo in its graphql.Stats.
const statsExtensionKey = "AgentMarketResponseCacheKey"

// Lookup returns the cached body of a GraphQL request over HTTP, nil if it must be
// executed. It only finds requests that were executed before and so passed every limit.
func (c *Cache) Lookup(ctx context.Context, hash transport.RequestHash) []byte {
	if _, replaced := auth.ReplacedFrom(ctx); c == nil || replaced {
		return nil
	}
	start := graphql.Now()
	info, ok := c.requests.Get(hash)
	if !ok {
		return nil
	}
	resp := c.lookup(ctx, info.key(ctx))
	if resp == nil {
		return nil
	}
	if c.meter != nil {
		c.meter.ObserveOperation(info.rootField, graphql.Now().Sub(start))
	}
	return resp.Body
}

// Store records a request that was executed without an error, so that Lookup finds it.
// ctx is the context of its operation.
func (c *Cache) Store(ctx context.Context, hash transport.RequestHash) {
	if info, ok := graphql.GetOperationContext(ctx).Stats.GetExtension(statsExtensionKey).(requestInfo); ok && c != nil {
		c.requests.Add(hash, info)
	}
}

// InterceptOperation serves a query from the cache, or executes it and caches its
// response.
func (c *Cache) InterceptOperation(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
	if c == nil {
		return next(ctx)
	}
	o := graphql.GetOperationContext(ctx)
	hash, err := operation.HashOf(o, o.Variables)
	if err != nil {
		return next(ctx)
	}
	info := requestInfo{hash: hash, private: operation.IsPrivate(o.Operation.SelectionSet), rootField: operation.RootFieldOf(o.Operation)}
	o.Stats.SetExtension(statsExtensionKey, info)
	return graphql.OneShot(c.Get(ctx, info.key(ctx), func(ctx context.Context) *Response {
		return newResponse(next(ctx)(ctx))
	}).graphqlResponse)
}

// newResponse renders a GraphQL response. It is cacheable if it has data and nothing
// else.
func newResponse(response *graphql.Response) *Response {
	if response == nil || response.Data == nil || len(response.Errors) > 0 || len(response.Extensions) > 0 || response.HasNext != nil {
		return &Response{graphqlResponse: response}
	}
	const before, after = `{"data":`, `}`
	body := slices.Concat([]byte(before), response.Data, []byte(after))
	data := body[len(before) : len(body)-len(after)]
	return &Response{Body: body, Cacheable: true, graphqlResponse: &graphql.Response{Data: data}}
}

package graph

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"slices"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"

	"agentmarket.space/server/graph/transport"
)

// statsExtensionKey is under which name an operation knows its question.
const statsExtensionKey = "AgentMarketQuestion"

// Lookup returns the body that a request over HTTP is answered with, nil when it
// has to be executed. Only what was executed before, and passed every limit
// then, is known.
func (a *Cache) Lookup(ctx context.Context, asked transport.RequestHash) []byte {
	if a == nil {
		return nil
	}
	begun := graphql.Now()
	if k, ok := a.requests.Get(asked); ok {
		if answer := a.getValid(ctx, k.key(ctx)); answer != nil {
			if a.Meter != nil {
				a.Meter.ObserveOperation(k.rootField, graphql.Now().Sub(begun))
			}
			return answer.Body
		}
	}
	return nil
}

// Store remembers what a request asks for that was answered without an error.
// ctx is the one that its operation was executed in.
func (a *Cache) Store(ctx context.Context, asked transport.RequestHash) {
	if k, ok := graphql.GetOperationContext(ctx).Stats.GetExtension(statsExtensionKey).(operationInfo); ok && a != nil {
		a.requests.Add(asked, k)
	}
}

// InterceptOperation answers a query, from memory when nothing has changed.
func (a *Cache) InterceptOperation(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
	o := graphql.GetOperationContext(ctx)
	k, ok := operationInfoFor(o)
	if a == nil || !ok {
		return next(ctx)
	}
	o.Stats.SetExtension(statsExtensionKey, k)
	return graphql.OneShot(a.Get(ctx, k.key(ctx), func(ctx context.Context) *Response {
		return newResponse(next(ctx)(ctx))
	}).graphqlResponse)
}

// newResponse renders what a query was answered, to be kept when it is whole: no
// error in it, and nothing beside its data.
func newResponse(response *graphql.Response) *Response {
	if response == nil || response.Data == nil || len(response.Errors) > 0 || len(response.Extensions) > 0 || response.HasNext != nil {
		return &Response{graphqlResponse: response}
	}
	const before, after = `{"data":`, `}`
	body := slices.Concat([]byte(before), response.Data, []byte(after))
	data := body[len(before) : len(body)-len(after)]
	return &Response{Body: body, Cacheable: true, graphqlResponse: &graphql.Response{Data: data}}
}

// operationInfoFor is the same for queries with the same document and variables.
func operationInfoFor(o *graphql.OperationContext) (k operationInfo, ok bool) {
	variables, err := json.Marshal(o.Variables)
	if err != nil {
		return k, false
	}
	k.hash = sha256.Sum256(bytes.Join([][]byte{[]byte(o.RawQuery), []byte(o.OperationName), variables}, []byte{0}))
	k.private, k.rootField = isPrivate(o.Operation.SelectionSet, true), rootFieldOf(o.Operation)
	return k, true
}

// isPrivate reports whether the value of a selected field depends on who asks:
// of the fields of Query those that find what not everybody may see, the result
// of a task anywhere, and what needs a key.
func isPrivate(set ast.SelectionSet, ofQuery bool) bool {
	for _, selection := range set {
		var within ast.SelectionSet
		inside := ofQuery
		switch selection := selection.(type) {
		case *ast.Field:
			if selection.Name == "result" || selection.Definition.Directives.ForName("authenticated") != nil ||
				ofQuery && slices.Contains([]string{"viewer", "node", "nodes", "task"}, selection.Name) {
				return true
			}
			within, inside = selection.SelectionSet, false
		case *ast.InlineFragment:
			within = selection.SelectionSet
		case *ast.FragmentSpread:
			within = selection.Definition.SelectionSet
		}
		if isPrivate(within, inside) {
			return true
		}
	}
	return false
}

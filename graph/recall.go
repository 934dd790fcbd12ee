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

// statistic is under which name an operation knows its question.
const statistic = "AgentMarketQuestion"

// Recall returns the body that a request over HTTP is answered with, nil when it
// has to be executed. Only what was executed before, and passed every limit
// then, is known.
func (a *Answers) Recall(ctx context.Context, asked transport.Asked) []byte {
	if a == nil {
		return nil
	}
	begun := graphql.Now()
	if k, ok := a.known.Get(asked); ok {
		if answer := a.find(ctx, k.by(ctx)); answer != nil {
			if a.Meter != nil {
				a.Meter.Answered(k.root, graphql.Now().Sub(begun))
			}
			return answer.Body
		}
	}
	return nil
}

// Note remembers what a request asks for that was answered without an error.
// ctx is the one that its operation was executed in.
func (a *Answers) Note(ctx context.Context, asked transport.Asked) {
	if k, ok := graphql.GetOperationContext(ctx).Stats.GetExtension(statistic).(known); ok && a != nil {
		a.known.Add(asked, k)
	}
}

// around answers a query, from memory when nothing has changed.
func (a *Answers) around(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
	o := graphql.GetOperationContext(ctx)
	k, ok := queried(o)
	if a == nil || !ok {
		return next(ctx)
	}
	o.Stats.SetExtension(statistic, k)
	return graphql.OneShot(a.Get(ctx, k.by(ctx), func(ctx context.Context) *Answer {
		return finished(next(ctx)(ctx))
	}).response)
}

// finished renders what a query was answered, to be kept when it is whole: no
// error in it, and nothing beside its data.
func finished(response *graphql.Response) *Answer {
	if response == nil || response.Data == nil || len(response.Errors) > 0 || len(response.Extensions) > 0 || response.HasNext != nil {
		return &Answer{response: response}
	}
	const before, after = `{"data":`, `}`
	body := slices.Concat([]byte(before), response.Data, []byte(after))
	data := body[len(before) : len(body)-len(after)]
	return &Answer{Body: body, Keep: true, response: &graphql.Response{Data: data}}
}

// queried is the same for queries with the same document and variables.
func queried(o *graphql.OperationContext) (k known, ok bool) {
	variables, err := json.Marshal(o.Variables)
	if err != nil {
		return k, false
	}
	k.of = sha256.Sum256(bytes.Join([][]byte{[]byte(o.RawQuery), []byte(o.OperationName), variables}, []byte{0}))
	k.personal, k.root = personal(o.Operation.SelectionSet, true), rootOf(o.Operation)
	return k, true
}

// personal reports whether the value of a selected field depends on who asks:
// of the fields of Query those that find what not everybody may see, the result
// of a task anywhere, and what needs a key.
func personal(set ast.SelectionSet, ofQuery bool) bool {
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
		if personal(within, inside) {
			return true
		}
	}
	return false
}

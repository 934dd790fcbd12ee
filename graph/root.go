package graph

import (
	"context"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"

	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/models"
)

// Root is what an operation asks for: its kind (query, mutation or subscription) and
// the field of the schema that it begins with, or [Several].
type Root struct{ Kind, Field string }

// Several stands for the field of an operation with more than one, and of one that
// asks for the schema alone.
const Several = "several"

// Meter is told what becomes of operations. It is called on the way of each and must
// be quick.
type Meter interface {
	// Answered is told how long an operation took to its answer, or to its beginning
	// when it is a subscription.
	Answered(root Root, took time.Duration)
	// Refused is told the code of every error, of documents that are not executed too.
	Refused(code models.Code)
}

// Roots returns every root there can be.
func Roots() (roots []Root) {
	schema := generated.NewExecutableSchema(generated.Config{}).Schema()
	for kind, of := range map[ast.Operation]*ast.Definition{
		ast.Query: schema.Query, ast.Mutation: schema.Mutation, ast.Subscription: schema.Subscription,
	} {
		roots = append(roots, Root{string(kind), Several})
		for _, field := range of.Fields {
			if !isMeta(field.Name) {
				roots = append(roots, Root{string(kind), field.Name})
			}
		}
	}
	return roots
}

// rootOf returns what an operation that passed validation asks for.
func rootOf(operation *ast.OperationDefinition) Root {
	name := firstField(operation.SelectionSet, "")
	if name == "" {
		name = Several
	}
	return Root{string(operation.Operation), name}
}

// firstField returns the one field that a selection has beside those of introspection,
// or seen before it: empty for none, [Several] for more.
func firstField(set ast.SelectionSet, seen string) string {
	for _, selection := range set {
		name := ""
		switch selection := selection.(type) {
		case *ast.Field:
			if !isMeta(selection.Name) {
				name = selection.Name
			}
		case *ast.InlineFragment:
			name = firstField(selection.SelectionSet, seen)
		case *ast.FragmentSpread:
			name = firstField(selection.Definition.SelectionSet, seen)
		}
		switch {
		case name == "" || name == seen:
		case seen == "":
			seen = name
		default:
			return Several
		}
	}
	return seen
}

// isMeta reports whether a field is one of introspection.
func isMeta(name string) bool { return len(name) > 1 && name[:2] == "__" }

// told has the meter told of an operation when it has its first answer, or at once when
// it goes on without anybody waiting.
func (o *ServerOptions) told(ctx context.Context, responses graphql.ResponseHandler) graphql.ResponseHandler {
	if o.Meter == nil {
		return responses
	}
	operation := graphql.GetOperationContext(ctx)
	tell := func() {
		o.Meter.Answered(rootOf(operation.Operation), graphql.Now().Sub(operation.Stats.OperationStart))
	}
	if responses == nil {
		tell()
		return nil
	}
	answered := false
	return func(ctx context.Context) *graphql.Response {
		response := responses(ctx)
		if !answered {
			answered = true
			tell()
		}
		return response
	}
}

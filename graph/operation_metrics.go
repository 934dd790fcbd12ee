package graph

import (
	"context"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"

	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/models"
)

// RootField is what an operation asks for: its kind (query, mutation or subscription) and
// the field of the schema that it begins with, or [MultipleFields].
type RootField struct{ Kind, Name string }

// MultipleFields stands for the field of an operation with more than one, and of one that
// asks for the schema alone.
const MultipleFields = "several"

// Meter is told what becomes of operations. It is called on the way of each and must
// be quick.
type Meter interface {
	// ObserveOperation is told how long an operation took to its answer, or to its beginning
	// when it is a subscription.
	ObserveOperation(root RootField, took time.Duration)
	// CountError is told the code of every error, of documents that are not executed too.
	CountError(code models.Code)
}

// RootFields returns every root there can be.
func RootFields() (roots []RootField) {
	schema := generated.NewExecutableSchema(generated.Config{}).Schema()
	for kind, of := range map[ast.Operation]*ast.Definition{
		ast.Query: schema.Query, ast.Mutation: schema.Mutation, ast.Subscription: schema.Subscription,
	} {
		roots = append(roots, RootField{string(kind), MultipleFields})
		for _, field := range of.Fields {
			if !isIntrospectionField(field.Name) {
				roots = append(roots, RootField{string(kind), field.Name})
			}
		}
	}
	return roots
}

// rootFieldOf returns what an operation that passed validation asks for.
func rootFieldOf(operation *ast.OperationDefinition) RootField {
	name := singleField(operation.SelectionSet, "")
	if name == "" {
		name = MultipleFields
	}
	return RootField{string(operation.Operation), name}
}

// singleField returns the one field that a selection has beside those of introspection,
// or seen before it: empty for none, [MultipleFields] for more.
func singleField(set ast.SelectionSet, seen string) string {
	for _, selection := range set {
		name := ""
		switch selection := selection.(type) {
		case *ast.Field:
			if !isIntrospectionField(selection.Name) {
				name = selection.Name
			}
		case *ast.InlineFragment:
			name = singleField(selection.SelectionSet, seen)
		case *ast.FragmentSpread:
			name = singleField(selection.Definition.SelectionSet, seen)
		}
		switch {
		case name == "" || name == seen:
		case seen == "":
			seen = name
		default:
			return MultipleFields
		}
	}
	return seen
}

// isIntrospectionField reports whether a field is one of introspection.
func isIntrospectionField(name string) bool { return len(name) > 1 && name[:2] == "__" }

// observeOperation has the meter told of an operation when it has its first answer, or at once when
// it goes on without anybody waiting.
func (o *ServerOptions) observeOperation(ctx context.Context, responses graphql.ResponseHandler) graphql.ResponseHandler {
	if o.Meter == nil {
		return responses
	}
	operation := graphql.GetOperationContext(ctx)
	tell := func() {
		o.Meter.ObserveOperation(rootFieldOf(operation.Operation), graphql.Now().Sub(operation.Stats.OperationStart))
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

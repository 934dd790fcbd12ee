// Package generated is what gqlgen makes of schema.graphqls, and how the lists in
// it are rendered.
package generated

import (
	"context"

	"github.com/99designs/gqlgen/graphql"
)

// marshalSlice renders the elements of a list one after another. Where gqlgen
// would start a goroutine for each, it is what the generated code calls: what
// the elements refer to is loaded at once for all, so that none ever waits.
//
// An element that panics is null, with an error, and the others are rendered.
func marshalSlice(ctx context.Context, length int, _ int64, _ bool, element func(context.Context, int) graphql.Marshaler) graphql.Array {
	list := make(graphql.Array, length)
	for i := range list {
		list[i] = marshalElement(graphql.WithFieldContext(ctx, &graphql.FieldContext{Index: &i}), i, element)
	}
	return list
}

func marshalElement(ctx context.Context, i int, element func(context.Context, int) graphql.Marshaler) (rendered graphql.Marshaler) {
	defer func() {
		if p := recover(); p != nil {
			graphql.AddError(ctx, graphql.Recover(ctx, p))
			rendered = graphql.Null
		}
	}()
	return element(ctx, i)
}

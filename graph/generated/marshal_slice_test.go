package generated

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/99designs/gqlgen/graphql"
)

// TestMarshalSlice checks that elements are rendered in order, each with its index
// in the path, and that an element that panics is null.
func TestMarshalSlice(t *testing.T) {
	t.Parallel()
	ctx := graphql.WithResponseContext(t.Context(), graphql.DefaultErrorPresenter, func(context.Context, any) error { return errors.New("a fault") })
	var order []int
	list := marshalSlice(ctx, 4, 0, false, func(ctx context.Context, i int) graphql.Marshaler {
		order = append(order, i)
		if i == 2 {
			panic("a fault")
		}
		return graphql.MarshalString(graphql.GetFieldContext(ctx).Path().String())
	})
	var out bytes.Buffer
	list.MarshalGQL(&out)
	if out.String() != `["[0]","[1]",null,"[3]"]` || fmt.Sprint(order) != "[0 1 2 3]" {
		t.Errorf("rendered %s in the order %v", out.String(), order)
	}
	if errs := graphql.GetErrors(ctx); len(errs) != 1 || errs[0].Message != "a fault" || errs[0].Path.String() != "[2]" {
		t.Errorf("the errors are %v", errs)
	}
	if list := marshalSlice(ctx, 0, 0, false, nil); len(list) != 0 {
		t.Errorf("nothing is rendered as %v", list)
	}
}

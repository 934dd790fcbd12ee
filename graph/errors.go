package graph

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/models"
)

// PresentError turns an error of a resolver into the one a client sees: a refusal
// with its code in extensions.code and the field at fault in extensions.field,
// anything else as INTERNAL with nothing of its cause. Errors of the GraphQL
// layer itself, such as a document that does not validate, stay as they are.
func PresentError(ctx context.Context, err error) *gqlerror.Error {
	var known *gqlerror.Error
	if errors.As(err, &known) && known.Err == nil {
		return ensureErrorCode(known)
	}
	presented := graphql.DefaultErrorPresenter(ctx, err)
	refusal := models.AsError(err)
	if errors.Is(err, context.DeadlineExceeded) && refusal.Code == models.Internal {
		refusal = models.Errorf(models.Unavailable, "the operation took too long")
	}
	if input := mistypedInput(ctx, presented.Path); input != "" && refusal.Code == models.Internal {
		refusal = models.Invalid(input, "has a value of the wrong type")
	}
	if resolvesIntrospection(ctx) && refusal.Code == models.Internal {
		refusal = models.Errorf(models.Forbidden, "introspection is switched off")
	}
	presented.Message = refusal.Message
	presented.Extensions = map[string]any{"code": string(refusal.Code)}
	if refusal.Field != "" {
		presented.Extensions["field"] = refusal.Field
	}
	if refusal.RetryAfter > 0 {
		presented.Extensions["retryAfter"] = int(refusal.RetryAfter.Seconds() + 1)
	}
	if id := auth.RequestFrom(ctx).ID; id != "" {
		presented.Extensions["requestId"] = id
	}
	return presented
}

// mistypedInput returns the name of the input that could not be read as its type: the
// path of such an error goes on below the field whose argument it is. It is
// empty for every other error.
func mistypedInput(ctx context.Context, path ast.Path) string {
	field := graphql.GetFieldContext(ctx)
	if field == nil || len(path) <= len(field.Path()) {
		return ""
	}
	for _, step := range slices.Backward(path) {
		if name, ok := step.(ast.PathName); ok {
			return string(name)
		}
	}
	return ""
}

// resolvesIntrospection reports whether the field asks for the schema. That fails only where
// it is switched off, with an error that gqlgen gives no type.
func resolvesIntrospection(ctx context.Context) bool {
	field := graphql.GetFieldContext(ctx)
	return field != nil && field.Field.Field != nil && (field.Field.Name == "__schema" || field.Field.Name == "__type")
}

// ensureErrorCode gives an error of the GraphQL layer a code when it has none.
func ensureErrorCode(err *gqlerror.Error) *gqlerror.Error {
	if err.Extensions == nil {
		err.Extensions = map[string]any{}
	}
	switch err.Extensions["code"] {
	case nil, "GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED", "COMPLEXITY_LIMIT_EXCEEDED":
		err.Extensions["code"] = string(models.InvalidInput)
	}
	return err
}

// errorPresenter logs what is no refusal, once, and presents it. Who may not read the schema
// is not told the names in it that come close to a wrong one either.
func errorPresenter(logger *slog.Logger, suggest bool) graphql.ErrorPresenterFunc {
	return func(ctx context.Context, err error) *gqlerror.Error {
		presented := PresentError(ctx, err)
		if !suggest {
			presented.Message, _, _ = strings.Cut(presented.Message, " Did you mean ")
		}
		if presented.Extensions["code"] == string(models.Internal) && ctx.Err() == nil {
			logger.ErrorContext(ctx, "resolver failed", slog.Any("error", err),
				slog.String("path", presented.Path.String()), slog.String("request_id", auth.RequestFrom(ctx).ID))
		}
		return presented
	}
}

// countErrors has the meter told of every error that is presented.
func (o *ServerOptions) countErrors(present graphql.ErrorPresenterFunc) graphql.ErrorPresenterFunc {
	if o.Meter == nil {
		return present
	}
	return func(ctx context.Context, err error) *gqlerror.Error {
		presented := present(ctx, err)
		if code, ok := presented.Extensions["code"].(string); ok {
			o.Meter.CountError(models.Code(code))
		}
		return presented
	}
}

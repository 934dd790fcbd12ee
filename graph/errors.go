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

// PresentError returns the error that a client sees for an error of a resolver. A domain
// error keeps its message, with its code in extensions.code and the invalid field in
// extensions.field. Any other error becomes INTERNAL without its message. Errors of the
// GraphQL layer, such as an invalid document, keep their message.
func PresentError(ctx context.Context, err error) *gqlerror.Error {
	var gqlErr *gqlerror.Error
	if errors.As(err, &gqlErr) && gqlErr.Err == nil {
		return ensureErrorCode(gqlErr)
	}
	presented := graphql.DefaultErrorPresenter(ctx, err)
	domainErr := models.AsError(err)
	if errors.Is(err, context.DeadlineExceeded) && domainErr.Code == models.Internal {
		domainErr = models.Errorf(models.Unavailable, "the operation took too long; a change may have been made; a retry with the same Idempotency-Key is safe")
	}
	if input := mistypedInput(ctx, presented.Path); input != "" && domainErr.Code == models.Internal {
		domainErr = models.FieldErrorf(input, "has a value of the wrong type")
		if wrongNumber, ok := errors.AsType[*models.WholeNumberError](err); ok {
			domainErr = models.FieldErrorf(input, "%v", wrongNumber)
		}
	}
	if resolvesIntrospection(ctx) && domainErr.Code == models.Internal {
		domainErr = models.Errorf(models.Forbidden, "introspection is disabled on this server")
	}
	presented.Message = domainErr.Message
	presented.Extensions = map[string]any{"code": string(domainErr.Code)}
	if domainErr.Field != "" {
		presented.Extensions["field"] = domainErr.Field
	}
	if domainErr.RetryAfter > 0 {
		presented.Extensions["retryAfter"] = int(domainErr.RetryAfter.Seconds() + 1)
	}
	if id := auth.RequestFrom(ctx).ID; id != "" {
		presented.Extensions["requestId"] = id
	}
	return presented
}

// mistypedInput returns the name of the argument or input field whose value has the wrong
// type, or "" for another error. The path of such an error continues below the field with
// the argument.
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

// resolvesIntrospection reports whether the current field is __schema or __type. These
// fail only if introspection is disabled, with an untyped error of gqlgen.
func resolvesIntrospection(ctx context.Context) bool {
	field := graphql.GetFieldContext(ctx)
	return field != nil && field.Field.Field != nil && (field.Field.Name == "__schema" || field.Field.Name == "__type")
}

// ensureErrorCode sets the code INVALID_INPUT on an error of the GraphQL layer that has no
// code of ours.
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

// errorPresenter presents errors and logs the internal ones. Without suggest it removes
// the suggestions of similar field names: they would reveal a schema whose introspection
// is disabled.
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

// countErrors returns a presenter that also reports each error to the meter.
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

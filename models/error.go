package models

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Code tells a program what kind of refusal an [Error] is. The same words are
// used in REST bodies (`code`) and in GraphQL errors (`extensions.code`).
type Code string

// The refusals this server knows.
const (
	Unauthenticated    Code = "UNAUTHENTICATED"
	Forbidden          Code = "FORBIDDEN"
	NotFound           Code = "NOT_FOUND"
	InvalidInput       Code = "INVALID_INPUT"
	InsufficientFunds  Code = "INSUFFICIENT_CREDITS"
	Conflict           Code = "CONFLICT"
	IdempotencyReused  Code = "IDEMPOTENCY_KEY_REUSED"
	RateLimited        Code = "RATE_LIMITED"
	ExecutionFailed    Code = "EXECUTION_FAILED"
	ExecutionTimeout   Code = "EXECUTION_TIMEOUT"
	PayloadTooLarge    Code = "PAYLOAD_TOO_LARGE"
	MethodNotAllowed   Code = "METHOD_NOT_ALLOWED"
	UnsupportedMedia   Code = "UNSUPPORTED_MEDIA_TYPE"
	Unavailable        Code = "UNAVAILABLE"
	SlowConsumer       Code = "SLOW_CONSUMER"
	CursorExpired      Code = "CURSOR_EXPIRED"
	Internal           Code = "INTERNAL"
	internalErrMessage      = "internal error"
)

// Error is a refusal that a caller can act on. Every other error is a fault of
// the server: it is logged and shown as [Internal].
type Error struct {
	Code    Code
	Message string
	// Field names the input at fault with its schema name, empty when none is.
	Field string
	// RetryAfter says when trying again makes sense, zero when it is unknown.
	RetryAfter time.Duration
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Errorf makes a refusal with a code.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Invalid makes an [InvalidInput] refusal about one field.
func Invalid(field, format string, args ...any) *Error {
	return &Error{Code: InvalidInput, Field: field, Message: field + " " + fmt.Sprintf(format, args...)}
}

// RateLimitError makes a [RateLimited] refusal: what was too much, and in how long it
// is worth trying again.
func RateLimitError(wait time.Duration, what string) *Error {
	err := Errorf(RateLimited, "%s; try again in %d s", what, int(math.Ceil(wait.Seconds())))
	err.RetryAfter = wait
	return err
}

// AsError returns the refusal in err. When there is none it returns a fresh
// [Internal] one that says nothing of the cause.
func AsError(err error) *Error {
	if refusal, ok := errors.AsType[*Error](err); ok {
		return refusal
	}
	return &Error{Code: Internal, Message: internalErrMessage}
}

// CodeOf returns the code of the refusal in err, [Internal] when there is none.
func CodeOf(err error) Code { return AsError(err).Code }

package models

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Code is the machine-readable kind of an [Error]. It is `code` in REST responses and
// `extensions.code` in GraphQL errors.
type Code string

// The error codes of this server.
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

// Error is an error that a caller can act on. Any other error is a server fault: it is
// logged, and the caller gets [Internal].
type Error struct {
	Code    Code
	Message string
	// Field is the schema name of the invalid input field. It can be empty.
	Field string
	// RetryAfter is how long to wait before a retry. It is 0 if unknown.
	RetryAfter time.Duration
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Errorf returns an error with a code.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// FieldErrorf returns an [InvalidInput] error for a field. The message starts with the
// field.
func FieldErrorf(field, format string, args ...any) *Error {
	return &Error{Code: InvalidInput, Field: field, Message: field + " " + fmt.Sprintf(format, args...)}
}

// RateLimitError returns a [RateLimited] error with a reason and the time to wait
// before a retry.
func RateLimitError(wait time.Duration, reason string) *Error {
	err := Errorf(RateLimited, "%s; try again in %d s", reason, int(math.Ceil(wait.Seconds())))
	err.RetryAfter = wait
	return err
}

// AsError returns the [Error] in err's chain. If there is none, it returns a new
// [Internal] error that does not reveal err.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: Internal, Message: internalErrMessage}
}

// CodeOf returns the code of AsError(err).
func CodeOf(err error) Code { return AsError(err).Code }

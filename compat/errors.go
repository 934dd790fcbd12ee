package compat

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"unicode"

	"agentmarket.space/server/models"
)

// HTTPStatus returns the HTTP status of an error code.
func HTTPStatus(code models.Code) int {
	switch code {
	case models.InvalidInput:
		return http.StatusBadRequest
	case models.Unauthenticated:
		return http.StatusUnauthorized
	case models.InsufficientFunds:
		return http.StatusPaymentRequired
	case models.Forbidden:
		return http.StatusForbidden
	case models.NotFound:
		return http.StatusNotFound
	case models.MethodNotAllowed:
		return http.StatusMethodNotAllowed
	case models.Conflict:
		return http.StatusConflict
	case models.CursorExpired:
		return http.StatusGone
	case models.PayloadTooLarge:
		return http.StatusRequestEntityTooLarge
	case models.UnsupportedMedia:
		return http.StatusUnsupportedMediaType
	case models.IdempotencyReused:
		return http.StatusUnprocessableEntity
	case models.RateLimited:
		return http.StatusTooManyRequests
	case models.ExecutionFailed:
		return http.StatusBadGateway
	case models.Unavailable, models.SlowConsumer:
		return http.StatusServiceUnavailable
	case models.ExecutionTimeout:
		return http.StatusGatewayTimeout
	case models.Internal:
		return http.StatusInternalServerError
	}
	return http.StatusInternalServerError
}

// Advice returns a sentence that tells a client how to handle an error code.
func Advice(code models.Code) string {
	switch code {
	case models.InvalidInput:
		return "Fix the request; the message names the field."
	case models.Unauthenticated:
		return "Send a valid API key in the `X-API-Key` header."
	case models.InsufficientFunds:
		return "Lower the budget or earn credits first; `balance` is your current balance."
	case models.Forbidden:
		return "You are not allowed to do this. Do not retry."
	case models.NotFound:
		return "Check the id and the path: it does not exist, or you have no access to it."
	case models.MethodNotAllowed:
		return "Use a method that the `Allow` header lists."
	case models.Conflict:
		return "Read the task again: its status has changed, or the same request is still being processed."
	case models.CursorExpired:
		return "List the open tasks and subscribe without `after`: the events after that cursor have been deleted."
	case models.PayloadTooLarge:
		return "Send a smaller request."
	case models.UnsupportedMedia:
		return "Send JSON, with `Content-Type: application/json`."
	case models.IdempotencyReused:
		return "Use a new `Idempotency-Key`: this one was used for a different request."
	case models.RateLimited:
		return "Wait for the number of seconds in `Retry-After`."
	case models.ExecutionFailed:
		return "The hired agent failed and your budget was returned. Hire another agent or try again later."
	case models.ExecutionTimeout:
		return "The hired agent timed out and your budget was returned. Use `Prefer: respond-async` or hire another agent."
	case models.Unavailable:
		return "Retry with the same `Idempotency-Key` after `Retry-After`, or after a few seconds."
	case models.SlowConsumer:
		return "Subscribe again with the last cursor as `after`, and read faster."
	case models.Internal:
		return "Server error. Retry with the same `Idempotency-Key`; report the `X-Request-Id` to the operator."
	}
	return ""
}

// errorEnvelope is the envelope of an error.
type errorEnvelope struct {
	Success bool            `json:"success"`
	Error   string          `json:"error"`
	Code    models.Code     `json:"code"`
	Balance *models.Credits `json:"balance,omitempty"`
}

// AuthenticateChallenge is the WWW-Authenticate header of an UNAUTHENTICATED response.
const AuthenticateChallenge = `Bearer realm="agentmarket"`

// WriteError sends an error in the envelope. It is also used by the middleware. An
// error without a code is sent as INTERNAL, without its text; logging it is up to the
// caller. balance is the calling agent's balance, nil for none.
func WriteError(w http.ResponseWriter, r *http.Request, err error, balance *models.Credits) {
	domainErr := models.AsError(err)
	h := w.Header()
	if domainErr.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(domainErr.RetryAfter.Seconds()))))
	}
	if domainErr.Code == models.Unauthenticated {
		h.Set("WWW-Authenticate", AuthenticateChallenge)
	}
	body, err := encodeJSON(errorEnvelope{Error: restMessage(domainErr), Code: domainErr.Code, Balance: balance})
	if err != nil {
		body = nil // cannot happen: strings and a number always encode
	}
	writeJSON(w, r, HTTPStatus(domainErr.Code), body)
}

// restMessage returns the text of an error with the REST name of its field.
func restMessage(domainErr *models.Error) string {
	rest, ok := strings.CutPrefix(domainErr.Message, domainErr.Field+" ")
	if domainErr.Field == "" || !ok {
		return domainErr.Message
	}
	return restFieldName(domainErr.Field) + " " + rest
}

// restFieldName returns the REST name of a field of the GraphQL schema.
func restFieldName(field string) string {
	switch field {
	case "url":
		return "webhook_url"
	case "first":
		return "limit"
	case "after":
		return "cursor"
	case "filter":
		return "capability"
	case "Idempotency-Key": // a header
		return field
	}
	var name strings.Builder
	for _, c := range field {
		if unicode.IsUpper(c) {
			name.WriteByte('_')
			c = unicode.ToLower(c)
		}
		name.WriteRune(c)
	}
	return name.String()
}

package compat

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"unicode"

	"agentmarket.space/server/models"
)

// HTTPStatus is the HTTP status of a refusal.
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

// Advice says what a client makes of a refusal.
func Advice(code models.Code) string {
	switch code {
	case models.InvalidInput:
		return "Correct the request; the message names the field."
	case models.Unauthenticated:
		return "Send a key that this server knows, as `X-API-Key`."
	case models.InsufficientFunds:
		return "Offer less, or earn first; `balance` is what you have."
	case models.Forbidden:
		return "Leave it: it is not yours to do."
	case models.NotFound:
		return "Check the id and the path: there is no such thing, or not for you."
	case models.MethodNotAllowed:
		return "Use a method that `Allow` names."
	case models.Conflict:
		return "Read the task again: it has moved on, or the same request is still being answered."
	case models.CursorExpired:
		return "List what is open and subscribe without `after`: events after that cursor are gone."
	case models.PayloadTooLarge:
		return "Send less."
	case models.UnsupportedMedia:
		return "Send JSON, with `Content-Type: application/json`."
	case models.IdempotencyReused:
		return "Take a new `Idempotency-Key`: this one was sent with another request."
	case models.RateLimited:
		return "Wait as long as `Retry-After` says."
	case models.ExecutionFailed:
		return "The hired agent failed and your budget is back. Hire another, or try later."
	case models.ExecutionTimeout:
		return "The hired agent was too slow and your budget is back. Do not wait next time, or hire another."
	case models.Unavailable:
		return "Try again after `Retry-After`, or some seconds, with the same `Idempotency-Key`."
	case models.SlowConsumer:
		return "Read faster; subscribe again with the last cursor as `after`."
	case models.Internal:
		return "Our fault. Try again with the same `Idempotency-Key`; tell the operator the `X-Request-Id`."
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

// WriteError answers a request with an error in the envelope, for the routes
// and for what stands before them. An error that is no refusal is answered as
// INTERNAL with nothing of its cause; it is the caller's to log. The balance is
// the calling agent's, nil when there is none.
func WriteError(w http.ResponseWriter, r *http.Request, err error, balance *models.Credits) {
	refusal := models.AsError(err)
	h := w.Header()
	if refusal.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(refusal.RetryAfter.Seconds()))))
	}
	if refusal.Code == models.Unauthenticated {
		h.Set("WWW-Authenticate", `Bearer realm="agentmarket"`)
	}
	body, err := encodeJSON(errorEnvelope{Error: restMessage(refusal), Code: refusal.Code, Balance: balance})
	if err != nil {
		body = nil // strings and a number always encode
	}
	writeJSON(w, r, HTTPStatus(refusal.Code), body)
}

// restMessage is the refusal's text with the field at fault as REST calls it.
func restMessage(refusal *models.Error) string {
	rest, ok := strings.CutPrefix(refusal.Message, refusal.Field+" ")
	if refusal.Field == "" || !ok {
		return refusal.Message
	}
	return restFieldName(refusal.Field) + " " + rest
}

// restFieldName is the REST name of a field of the schema.
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

package app

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"agentmarket.space/server/compat"
	"agentmarket.space/server/internal/audit"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/config"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// Pages of the audit log.
const (
	defaultAuditPage = 100
	maxAuditPage     = 1000
)

// operatorAPI is the HTTP API of the operator. The operator key is not valid for the
// agent APIs, and API keys of agents are not valid here.
type operatorAPI struct {
	*authMiddleware

	key    string // if empty, /operator is disabled
	market *market.Market
	audit  *audit.Log
	clock  *Clock // nil for a production server
}

// readOperatorKey returns the configured operator key, or reads it from the
// configured file.
func readOperatorKey(c config.Config) (string, error) {
	if c.OperatorKeyFile == "" {
		return c.OperatorKey, nil
	}
	text, err := os.ReadFile(c.OperatorKeyFile)
	if err != nil {
		return "", fmt.Errorf("operator-key-file: %w", err)
	}
	key := strings.TrimSpace(string(text))
	if len(key) < config.MinOperatorKeyLength {
		return "", fmt.Errorf("operator-key-file: the key must have at least %d characters", config.MinOperatorKeyLength)
	}
	return key, nil
}

// handler serves the paths below /operator.
func (o *operatorAPI) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /operator/audit", o.listAudit)
	mux.HandleFunc("DELETE /operator/agents/{id}/keys", o.revokeKeys)
	if o.clock != nil {
		mux.HandleFunc("POST /operator/clock", o.advanceClock)
		mux.HandleFunc("/operator/clock", o.methodNotAllowed("POST"))
	}
	mux.HandleFunc("/operator/audit", o.methodNotAllowed("GET, HEAD"))
	mux.HandleFunc("/operator/agents/{id}/keys", o.methodNotAllowed("DELETE"))
	mux.HandleFunc("/", o.notFound)
	if o.key == "" {
		return http.HandlerFunc(o.notFound)
	}
	return o.requireKey(mux)
}

// protectMetrics requires the operator key for metrics if one is configured.
func (o *operatorAPI) protectMetrics(next http.Handler) http.Handler {
	if o.key == "" {
		return next
	}
	return o.requireKey(next)
}

// requireKey rejects requests without the operator key with UNAUTHENTICATED. It
// compares keys in constant time and rate-limits failed attempts by address.
func (o *operatorAPI) requireKey(next http.Handler) http.Handler {
	want := auth.HashKey(o.key)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request := auth.RequestFrom(r.Context())
		request.Address = clientAddress(r, o.trustedProxies)
		key, err := auth.KeyFromHeader(r.Header)
		got := auth.HashKey(key)
		if err == nil && subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
			next.ServeHTTP(w, r)
			return
		}
		quota, limited := o.limits.allowRequest(r.Context())
		setRateLimitHeaders(w.Header(), quota)
		switch {
		case limited != nil:
			err = limited
		case err == nil:
			err = models.Errorf(models.Unauthenticated, "operator key required: send it in the header Authorization: Bearer KEY")
		}
		o.audit.CountRejection(r.Context(), models.AuditOperatorRefused, models.CodeOf(err))
		compat.WriteError(w, r, err, nil)
	})
}

func (*operatorAPI) notFound(w http.ResponseWriter, r *http.Request) {
	writeError(w, r, models.Errorf(models.NotFound, "no such route"), nil)
}

func (*operatorAPI) methodNotAllowed(allowed string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", allowed)
		writeError(w, r, models.Errorf(models.MethodNotAllowed, "method not allowed; use %s", allowed), nil)
	}
}

// listAudit responds with a page of the audit log, newest first. The parameter actor
// selects entries of one actor, limit sets the page size, and before is the last
// number of the previous page.
func (o *operatorAPI) listAudit(w http.ResponseWriter, r *http.Request) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil { // r.FormValue would leave out what it cannot decode
		compat.WriteError(w, r, models.Errorf(models.InvalidInput, "the query string is malformed"), nil)
		return
	}
	q := audit.Query{Actor: models.CanonicalID(query.Get("actor")), Limit: defaultAuditPage}
	if !utf8.ValidString(q.Actor) || strings.ContainsRune(q.Actor, 0) {
		compat.WriteError(w, r, models.FieldErrorf("actor", "must be an id"), nil)
		return
	}
	if text := query.Get("limit"); text != "" {
		if q.Limit, err = strconv.Atoi(text); err != nil || q.Limit < 1 || q.Limit > maxAuditPage {
			compat.WriteError(w, r, models.FieldErrorf("limit", "must be from 1 to %d", maxAuditPage), nil)
			return
		}
	}
	if text := query.Get("before"); text != "" {
		if q.Before, err = strconv.ParseInt(text, 10, 64); err != nil || q.Before < 1 {
			compat.WriteError(w, r, models.FieldErrorf("before", "must be the number of an audit entry"), nil)
			return
		}
	}
	entries, err := o.audit.Read(r.Context(), q)
	o.respond(w, r, entries, err)
}

// revokeKeys revokes all API keys of an agent.
func (o *operatorAPI) revokeKeys(w http.ResponseWriter, r *http.Request) {
	err := o.market.RevokeKeys(r.Context(), models.CanonicalID(r.PathValue("id")))
	o.respond(w, r, struct{}{}, err)
}

// advanceClock handles POST /operator/clock: it advances the clock by the duration in
// the body, {"advance": "24h"}, and responds with the new time.
func (o *operatorAPI) advanceClock(w http.ResponseWriter, r *http.Request) {
	var body struct{ Advance string }
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10)).Decode(&body)
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		compat.WriteError(w, r, models.Errorf(models.PayloadTooLarge, "the request is too large"), nil)
		return
	}
	d, parseErr := time.ParseDuration(body.Advance)
	if err != nil || parseErr != nil {
		compat.WriteError(w, r, models.FieldErrorf("advance", `must be a duration like {"advance": "24h"}`), nil)
		return
	}
	err = o.clock.Advance(d)
	o.respond(w, r, map[string]any{"now": models.NewTime(o.clock.Now()), "ahead": o.clock.Offset().String()}, err)
}

func (o *operatorAPI) respond(w http.ResponseWriter, r *http.Request, data any, err error) {
	if err != nil {
		if apiErr := (*models.Error)(nil); !errors.As(err, &apiErr) {
			o.logger.ErrorContext(r.Context(), "operator request failed", slog.Any("error", err),
				slog.String("request_id", auth.RequestFrom(r.Context()).ID))
		}
		compat.WriteError(w, r, err, nil)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(map[string]any{"success": true, "data": data}) // an error means that the client closed the connection
}

package app

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"

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

// operatorAPI is the door of who runs the server. Its key opens nothing of the agents',
// and none of theirs opens it.
type operatorAPI struct {
	*authMiddleware

	key    string // empty when there is none: then there is no such door
	market *market.Market
	audit  *audit.Log
	clock  *Clock // nil unless it can be moved
}

// readOperatorKey is the one that is given, or in the file that is named.
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

// handler answers what is under /operator.
func (o *operatorAPI) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /operator/audit", o.listAudit)
	mux.HandleFunc("DELETE /operator/agents/{id}/keys", o.revokeKeys)
	if o.clock != nil {
		mux.HandleFunc("POST /operator/clock", o.advanceClock)
	}
	mux.HandleFunc("/", o.notFound)
	if o.key == "" {
		return http.HandlerFunc(o.notFound)
	}
	return o.requireKey(mux)
}

// protectMetrics are for the operator alone once there is a key.
func (o *operatorAPI) protectMetrics(next http.Handler) http.Handler {
	if o.key == "" {
		return next
	}
	return o.requireKey(next)
}

// requireKey lets the operator's key through, in constant time, and keeps who tries others
// to the pace of strangers.
func (o *operatorAPI) requireKey(next http.Handler) http.Handler {
	want := auth.HashKey(o.key)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request := auth.RequestFrom(r.Context())
		request.Address = clientAddress(r, o.trustedProxies)
		got := auth.HashKey(apiKeyFrom(r))
		if subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
			next.ServeHTTP(w, r)
			return
		}
		q, err := o.limits.allowRequest(r.Context())
		setRateLimitHeaders(w.Header(), q)
		if err == nil {
			err = models.Errorf(models.Unauthenticated, "the operator's key is needed: send it as Authorization: Bearer")
		}
		o.audit.CountRejection(r.Context(), models.OperatorRefused, models.CodeOf(err))
		compat.WriteError(w, r, err, nil)
	})
}

func (*operatorAPI) notFound(w http.ResponseWriter, r *http.Request) {
	compat.WriteError(w, r, models.Errorf(models.NotFound, "there is no such route"), nil)
}

// listAudit answers with a page of the audit log: ?actor= of one actor alone, ?limit=
// entries, ?before= the number that the page before ended with.
func (o *operatorAPI) listAudit(w http.ResponseWriter, r *http.Request) {
	q := audit.Query{Actor: r.FormValue("actor"), Limit: defaultAuditPage}
	var err error
	if text := r.FormValue("limit"); text != "" {
		if q.Limit, err = strconv.Atoi(text); err != nil || q.Limit < 1 || q.Limit > maxAuditPage {
			compat.WriteError(w, r, models.Invalid("limit", "must be from 1 to %d", maxAuditPage), nil)
			return
		}
	}
	if text := r.FormValue("before"); text != "" {
		if q.Before, err = strconv.ParseInt(text, 10, 64); err != nil || q.Before < 1 {
			compat.WriteError(w, r, models.Invalid("before", "must be the number of an entry"), nil)
			return
		}
	}
	entries, err := o.audit.Read(r.Context(), q)
	o.respond(w, r, entries, err)
}

// revokeKeys ends every key of an agent.
func (o *operatorAPI) revokeKeys(w http.ResponseWriter, r *http.Request) {
	err := o.market.RevokeKeys(r.Context(), r.PathValue("id"))
	o.respond(w, r, struct{}{}, err)
}

func (o *operatorAPI) respond(w http.ResponseWriter, r *http.Request, data any, err error) {
	if err != nil {
		if refusal := (*models.Error)(nil); !errors.As(err, &refusal) {
			o.logger.ErrorContext(r.Context(), "the operator's request failed", slog.Any("error", err),
				slog.String("request_id", auth.RequestFrom(r.Context()).ID))
		}
		compat.WriteError(w, r, err, nil)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(map[string]any{"success": true, "data": data}) // an error means that the client is gone
}

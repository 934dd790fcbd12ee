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
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/config"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// Pages of the audit log.
const (
	standardAudit = 100
	mostAudit     = 1000
)

// operator is the door of who runs the server. Its key opens nothing of the agents',
// and none of theirs opens it.
type operator struct {
	*door

	key    string // empty when there is none: then there is no such door
	market *market.Market
	clock  *Clock // nil unless it can be moved
}

// operatorKey is the one that is given, or in the file that is named.
func operatorKey(c config.Config) (string, error) {
	if c.OperatorFile == "" {
		return c.OperatorKey, nil
	}
	text, err := os.ReadFile(c.OperatorFile)
	if err != nil {
		return "", fmt.Errorf("operator-key-file: %w", err)
	}
	key := strings.TrimSpace(string(text))
	if len(key) < config.MinOperatorKey {
		return "", fmt.Errorf("operator-key-file: the key must have at least %d characters", config.MinOperatorKey)
	}
	return key, nil
}

// handler answers what is under /operator.
func (o *operator) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /operator/audit", o.audit)
	mux.HandleFunc("DELETE /operator/agents/{id}/keys", o.revoke)
	if o.clock != nil {
		mux.HandleFunc("POST /operator/clock", o.move)
	}
	mux.HandleFunc("/", o.unknown)
	if o.key == "" {
		return http.HandlerFunc(o.unknown)
	}
	return o.guard(mux)
}

// metrics are for the operator alone once there is a key.
func (o *operator) metrics(next http.Handler) http.Handler {
	if o.key == "" {
		return next
	}
	return o.guard(next)
}

// guard lets the operator's key through, in constant time, and keeps who tries others
// to the pace of strangers.
func (o *operator) guard(next http.Handler) http.Handler {
	want := auth.HashKey(o.key)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request := auth.RequestFrom(r.Context())
		request.Address = clientAddress(r, o.trusted)
		got := auth.HashKey(presentedKey(r))
		if subtle.ConstantTimeCompare(got[:], want[:]) == 1 {
			next.ServeHTTP(w, r)
			return
		}
		q, err := o.limits.request(r.Context())
		announce(w.Header(), q)
		if err == nil {
			err = models.Errorf(models.Unauthenticated, "the operator's key is needed: send it as Authorization: Bearer")
		}
		o.market.Refused(r.Context(), models.OperatorRefused, models.CodeOf(err))
		compat.WriteError(w, r, err, nil)
	})
}

func (*operator) unknown(w http.ResponseWriter, r *http.Request) {
	compat.WriteError(w, r, models.Errorf(models.NotFound, "there is no such route"), nil)
}

// audit answers with a page of the audit log: ?actor= of one actor alone, ?limit=
// entries, ?before= the number that the page before ended with.
func (o *operator) audit(w http.ResponseWriter, r *http.Request) {
	q := market.AuditQuery{Actor: r.FormValue("actor"), Limit: standardAudit}
	var err error
	if text := r.FormValue("limit"); text != "" {
		if q.Limit, err = strconv.Atoi(text); err != nil || q.Limit < 1 || q.Limit > mostAudit {
			compat.WriteError(w, r, models.Invalid("limit", "must be from 1 to %d", mostAudit), nil)
			return
		}
	}
	if text := r.FormValue("before"); text != "" {
		if q.Before, err = strconv.ParseInt(text, 10, 64); err != nil || q.Before < 1 {
			compat.WriteError(w, r, models.Invalid("before", "must be the number of an entry"), nil)
			return
		}
	}
	entries, err := o.market.Audit(r.Context(), q)
	o.answer(w, r, entries, err)
}

// revoke ends every key of an agent.
func (o *operator) revoke(w http.ResponseWriter, r *http.Request) {
	err := o.market.RevokeKeys(r.Context(), r.PathValue("id"))
	o.answer(w, r, struct{}{}, err)
}

func (o *operator) answer(w http.ResponseWriter, r *http.Request, data any, err error) {
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

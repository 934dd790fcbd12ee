package app

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"agentmarket.space/server/compat"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/models"
)

// authMiddleware authenticates and rate-limits requests to GraphQL and REST.
type authMiddleware struct {
	keys           *auth.Keys
	limits         *rateLimiter
	wallet         func(ctx context.Context, agentID string) (*models.Wallet, error)
	replaced       func(ctx context.Context, key string) (auth.Actor, error) // see market.AuthenticateReplaced
	trustedProxies []netip.Prefix
	logger         *slog.Logger
}

// errorWriter writes an error response in the format of an API.
type errorWriter func(w http.ResponseWriter, r *http.Request, err error)

// authenticate puts the caller into the context. It rejects requests with an unknown
// key and requests over the rate limit, and responds to them with writeError.
func (m *authMiddleware) authenticate(next http.Handler, writeError errorWriter) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request := auth.RequestFrom(r.Context())
		request.Address = clientAddress(r, m.trustedProxies)
		request.IdempotencyKey = r.Header.Get("Idempotency-Key")
		ctx := r.Context()
		if key := apiKeyFrom(r); key != "" {
			actor, err := m.keys.Authenticate(ctx, key)
			if err != nil && models.CodeOf(err) == models.Unauthenticated && r.URL.Path == "/graphql" {
				actor, err = m.replaced(ctx, key)
			}
			if err != nil {
				if _, limited := m.limits.allowRequest(ctx); limited != nil {
					err = limited
				}
				writeError(w, r, err)
				return
			}
			if ctx = auth.WithActor(ctx, actor); actor.Replaced {
				ctx = auth.WithReplaced(ctx, actor)
			}
		}
		quota, err := m.limits.allowRequest(ctx)
		setRateLimitHeaders(w.Header(), quota)
		if err != nil {
			writeError(w, r.WithContext(ctx), err)
			return
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// writeRESTError responds with an error in the format of the REST API.
func (m *authMiddleware) writeRESTError(w http.ResponseWriter, r *http.Request, err error) {
	m.logInternalError(r, err)
	compat.WriteError(w, r, err, m.callerBalance(r.Context()))
}

// writeGraphQLError responds with an error in the format of GraphQL over HTTP.
func (m *authMiddleware) writeGraphQLError(w http.ResponseWriter, r *http.Request, err error) {
	m.logInternalError(r, err)
	apiErr := models.AsError(err)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if apiErr.RetryAfter > 0 {
		w.Header().Set("Retry-After", formatSeconds(apiErr.RetryAfter))
	}
	w.WriteHeader(compat.HTTPStatus(apiErr.Code))
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]any{
		"message": apiErr.Message, "extensions": map[string]any{"code": apiErr.Code},
	}}})
}

// logInternalError logs an error that is not a *models.Error, because the response
// does not contain its text.
func (m *authMiddleware) logInternalError(r *http.Request, err error) {
	if _, ok := errors.AsType[*models.Error](err); !ok {
		m.logger.ErrorContext(r.Context(), "request authentication failed", slog.Any("error", err),
			slog.String("request_id", auth.RequestFrom(r.Context()).ID))
	}
}

// callerBalance returns the available balance of the caller. It returns nil for
// anonymous callers, and if the balance cannot be read.
func (m *authMiddleware) callerBalance(ctx context.Context) *models.Credits {
	actor, ok := auth.FromContext(ctx)
	if !ok {
		return nil
	}
	wallet, err := m.wallet(ctx, actor.AgentID)
	if err != nil {
		return nil
	}
	return &wallet.Available
}

// apiKeyFrom returns the API key of a request, or "".
func apiKeyFrom(r *http.Request) string {
	if key := r.Header.Get("X-API-Key"); key != "" {
		return key
	}
	if key, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return key
	}
	return ""
}

// setRateLimitHeaders sets the X-RateLimit headers and the RateLimit headers of the
// IETF draft.
func setRateLimitHeaders(h http.Header, q *quota) {
	if q == nil {
		return
	}
	limit, remaining, reset := strconv.Itoa(q.limit), strconv.Itoa(q.remaining), formatSeconds(q.reset)
	values := [...]string{limit, remaining, reset, `"requests";q=` + limit, `"requests";r=` + remaining + `;t=` + reset}
	h["X-Ratelimit-Limit"] = values[0:1:1] // like Set, but with a single allocation
	h["X-Ratelimit-Remaining"] = values[1:2:2]
	h["X-Ratelimit-Reset"] = values[2:3:3]
	h["Ratelimit-Policy"] = values[3:4:4]
	h["Ratelimit"] = values[4:5:5]
}

// clientAddress returns the IP address of the client. For a request from a trusted
// proxy, it is the last address in X-Forwarded-For that is not a trusted proxy.
func clientAddress(r *http.Request, trusted []netip.Prefix) string {
	client, ok := parseAddress(r.RemoteAddr)
	if !ok {
		return r.RemoteAddr
	}
	isTrusted := func(ip netip.Addr) bool {
		return slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(ip) })
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		if hop = strings.TrimSpace(hop); hop == "" {
			continue // RFC 9110: a list may have empty entries
		}
		if !isTrusted(client) {
			break
		}
		ip, ok := parseAddress(hop)
		if !ok {
			break
		}
		client = ip
	}
	return client.String()
}

// parseAddress parses the address of a client, or an entry of X-Forwarded-For: an IP
// address, in brackets or not, which may have a port and a zone. It returns the address
// without them, because neither tells clients apart.
func parseAddress(text string) (ip netip.Addr, ok bool) {
	if withPort, err := netip.ParseAddrPort(text); err == nil {
		return withPort.Addr().Unmap().WithZone(""), true
	}
	if inner, found := strings.CutPrefix(text, "["); found {
		if text, found = strings.CutSuffix(inner, "]"); !found {
			return ip, false
		}
	}
	ip, err := netip.ParseAddr(text)
	return ip.Unmap().WithZone(""), err == nil
}

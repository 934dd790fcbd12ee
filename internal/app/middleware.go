package app

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

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

// authenticate puts the caller into the context. It rejects requests with an unknown
// key and requests over the rate limit.
func (m *authMiddleware) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request := auth.RequestFrom(r.Context())
		request.Address = clientAddress(r, m.trustedProxies)
		request.IdempotencyKey = r.Header.Get("Idempotency-Key")
		ctx := r.Context()
		actor, hasKey, err := m.authenticateRequest(ctx, r)
		if err != nil {
			if _, limited := m.limits.allowRequest(ctx); limited != nil {
				err = limited
			}
			m.reject(w, r, err)
			return
		}
		if hasKey {
			ctx = auth.WithActor(ctx, actor)
		}
		if actor.Replaced {
			ctx = auth.WithReplaced(ctx, actor)
		}
		quota, err := m.limits.allowRequest(ctx)
		setRateLimitHeaders(w.Header(), quota)
		if err != nil {
			m.reject(w, r.WithContext(ctx), err)
			return
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// authenticateRequest returns the agent whose API key is in the headers of a request. ok is
// false for an anonymous request. GraphQL accepts a replaced key too, for what
// market.AuthenticateReplaced allows.
func (m *authMiddleware) authenticateRequest(ctx context.Context, r *http.Request) (actor auth.Actor, ok bool, err error) {
	actor, ok, err = m.keys.AuthenticateHeader(ctx, r.Header)
	if err == nil || models.CodeOf(err) != models.Unauthenticated || r.URL.Path != "/graphql" {
		return actor, ok, err
	}
	key, keyErr := auth.KeyFromHeader(r.Header)
	if keyErr != nil {
		return auth.Actor{}, false, keyErr
	}
	actor, err = m.replaced(ctx, key)
	return actor, err == nil, err
}

// reject responds with an error in the format of the request's API.
func (m *authMiddleware) reject(w http.ResponseWriter, r *http.Request, err error) {
	m.logInternalError(r, err)
	writeError(w, r, err, m.callerBalance(r.Context()))
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

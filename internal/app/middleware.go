package app

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"agentmarket.space/server/compat"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/models"
)

// authMiddleware stands before GraphQL and REST: it finds out who is calling and keeps
// callers to their pace.
type authMiddleware struct {
	keys           *auth.Keys
	limits         *rateLimiter
	wallet         func(ctx context.Context, agentID string) (*models.Wallet, error)
	trustedProxies []netip.Prefix
	logger         *slog.Logger
}

// authenticate puts the caller and the request into the context. A key that is not
// known is turned away, whatever is asked for.
func (d *authMiddleware) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request := auth.RequestFrom(r.Context())
		request.Address = clientAddress(r, d.trustedProxies)
		request.IdempotencyKey = r.Header.Get("Idempotency-Key")
		ctx := r.Context()
		if key := apiKeyFrom(r); key != "" {
			actor, err := d.keys.Authenticate(ctx, key)
			if err != nil {
				if _, limited := d.limits.allowRequest(ctx); limited != nil {
					err = limited
				}
				d.writeError(w, r, err)
				return
			}
			ctx = auth.WithActor(ctx, actor)
		}
		q, err := d.limits.allowRequest(ctx)
		setRateLimitHeaders(w.Header(), q)
		if err != nil {
			d.writeError(w, r.WithContext(ctx), err)
			return
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// writeError answers with the error in the form of the door that was knocked at.
func (d *authMiddleware) writeError(w http.ResponseWriter, r *http.Request, err error) {
	var refusal *models.Error
	if !errors.As(err, &refusal) {
		d.logger.ErrorContext(r.Context(), "cannot admit a request", slog.Any("error", err),
			slog.String("request_id", auth.RequestFrom(r.Context()).ID))
	}
	if r.URL.Path != "/graphql" {
		compat.WriteError(w, r, err, d.callerBalance(r.Context()))
		return
	}
	refusal = models.AsError(err)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if refusal.RetryAfter > 0 {
		w.Header().Set("Retry-After", formatSeconds(refusal.RetryAfter))
	}
	w.WriteHeader(compat.HTTPStatus(refusal.Code))
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]any{
		"message": refusal.Message, "extensions": map[string]any{"code": refusal.Code},
	}}})
}

// callerBalance is what the caller can spend; nil for a stranger, or when it cannot
// be read.
func (d *authMiddleware) callerBalance(ctx context.Context) *models.Credits {
	actor, ok := auth.FromContext(ctx)
	if !ok {
		return nil
	}
	wallet, err := d.wallet(ctx, actor.AgentID)
	if err != nil {
		return nil
	}
	return &wallet.Available
}

// apiKeyFrom is the API key of a request, empty when it has none.
func apiKeyFrom(r *http.Request) string {
	if key := r.Header.Get("X-API-Key"); key != "" {
		return key
	}
	if key, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return key
	}
	return ""
}

// setRateLimitHeaders writes what the caller may still do, in the headers that clients
// read today and in the ones of the coming standard.
func setRateLimitHeaders(h http.Header, q *quota) {
	if q == nil {
		return
	}
	limit, left, reset := strconv.Itoa(q.limit), strconv.Itoa(q.remaining), formatSeconds(q.reset)
	values := [...]string{limit, left, reset, `"requests";q=` + limit, `"requests";r=` + left + `;t=` + reset}
	h["X-Ratelimit-Limit"] = values[0:1:1] // as Set would, with one allocation for all
	h["X-Ratelimit-Remaining"] = values[1:2:2]
	h["X-Ratelimit-Reset"] = values[2:3:3]
	h["Ratelimit-Policy"] = values[3:4:4]
	h["Ratelimit"] = values[4:5:5]
}

// clientAddress is the address that the request came from. Behind a trusted
// proxy it is the last one in X-Forwarded-For that is none of theirs.
func clientAddress(r *http.Request, trusted []netip.Prefix) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	isTrusted := func(address string) bool {
		ip, err := netip.ParseAddr(address)
		return err == nil && slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(ip.Unmap()) })
	}
	if !isTrusted(host) {
		return host
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		address, ok := parseForwardedAddress(strings.TrimSpace(hop))
		if !ok {
			break
		}
		host = address
		if !isTrusted(address) {
			break
		}
	}
	return host
}

// parseForwardedAddress reads an entry of X-Forwarded-For, which some proxies write with a
// port.
func parseForwardedAddress(hop string) (address string, ok bool) {
	if ip, err := netip.ParseAddr(hop); err == nil {
		return ip.Unmap().String(), true
	}
	if withPort, err := netip.ParseAddrPort(hop); err == nil {
		return withPort.Addr().Unmap().String(), true
	}
	return "", false
}

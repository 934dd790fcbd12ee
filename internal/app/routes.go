package app

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
)

// routes returns the handler of all paths with the middleware around it.
func (a *App) routes(rest http.Handler, pageRoutes map[string]http.Handler, keys *auth.Keys, operatorKey string) http.Handler {
	middleware := &authMiddleware{keys: keys, limits: a.limits, wallet: a.market.Wallet, replaced: a.market.AuthenticateReplaced, trustedProxies: a.config.TrustProxies, logger: a.logger}
	mux := http.NewServeMux()
	for pattern, handler := range a.serviceRoutes(middleware, rest, operatorKey) {
		mux.Handle(pattern, handler)
	}
	for pattern, handler := range pageRoutes {
		mux.Handle(pattern, handler)
	}
	api := middleware.authenticate(rest)
	root := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isRESTPath(r.URL.Path) { // it answers unclean paths itself
			api.ServeHTTP(w, r)
			return
		}
		if clean := cleanPath(r); clean != r.URL.EscapedPath() {
			redirect(w, r, a.basePath()+clean)
			return
		}
		mux.ServeHTTP(w, r)
	})
	overTLS := strings.HasPrefix(a.config.PublicURL, "https://")
	return belowBasePath(a.basePath(), mux, root, func(next http.Handler) http.Handler {
		return instrument(a.metrics, a.tracer, a.logger, secureHeaders(a.origins, a.config.EndpointTimeout+shutdownTimeout, overTLS, next))
	})
}

// serviceRoutes returns the handlers of all paths except REST and the public pages,
// by pattern.
func (a *App) serviceRoutes(middleware *authMiddleware, rest http.Handler, operatorKey string) map[string]http.Handler {
	operator := &operatorAPI{authMiddleware: middleware, key: operatorKey, market: a.market, audit: a.audit, clock: a.development.Clock}
	return map[string]http.Handler{
		"GET /livez":    http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok") }),
		"GET /readyz":   http.HandlerFunc(a.handleReady),
		"GET /metrics":  operator.protectMetrics(a.metrics.handler()),
		"/operator":     operator.handler(),
		"/operator/":    operator.handler(),
		"/graphql":      middleware.authenticate(a.graph),
		"/graphql/":     middleware.authenticate(http.HandlerFunc(operator.notFound)),
		"/openapi.json": rest,
	}
}

// handleReady responds with 200 if the server can handle requests, and with 503
// otherwise.
func (a *App) handleReady(w http.ResponseWriter, r *http.Request) {
	select {
	case <-a.stopping:
		writeText(w, http.StatusServiceUnavailable, "stopping")
		return
	default:
	}
	err := a.db.Ping(r.Context())
	if errors.Is(err, database.ErrFileLost) { // logged once, when it happened
		writeText(w, http.StatusServiceUnavailable, "the database file was removed or replaced: put it back and restart the server")
		return
	}
	if err != nil {
		a.logger.ErrorContext(r.Context(), "not ready", slog.Any("error", err))
		writeText(w, http.StatusServiceUnavailable, "database unavailable")
		return
	}
	if lag := a.events.Lag(); lag > maxEventLag {
		a.logger.ErrorContext(r.Context(), "not ready", slog.Duration("event_lag", lag))
		writeText(w, http.StatusServiceUnavailable, "event log is behind")
		return
	}
	writeText(w, http.StatusOK, "ready")
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n")
}

package app

import (
	"errors"
	"io"
	"net/http"
	"time"

	"agentmarket.space/server/models"
)

const (
	// defaultCSP is the policy for responses other than HTML pages, from the OWASP REST
	// Security Cheat Sheet.
	defaultCSP = "default-src 'none'; frame-ancestors 'none'"
	// hstsHeader is one year, from the OWASP Secure Headers Project.
	hstsHeader = "max-age=31536000"
)

// bodyReadTimeout bounds the time in which a client sends the request body.
const bodyReadTimeout = 15 * time.Second

// secureHeaders sets the security headers, handles CORS preflight requests, rejects
// ambiguous requests (see rejectAmbiguous) and cross-origin writes of other sites with
// FORBIDDEN, and sets read and write deadlines.
func secureHeaders(origins *origins, writeTimeout time.Duration, overTLS bool, next http.Handler) http.Handler {
	crossOrigin := http.NewCrossOriginProtection()
	crossOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		writeError(w, r, models.Errorf(models.Forbidden, "cross-origin request blocked"), nil)
	}))
	protected := crossOrigin.Handler(next)
	checked := rejectAmbiguous(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if origins.isTrusted(r) {
			next.ServeHTTP(w, r)
			return
		}
		protected.ServeHTTP(w, r)
	}))
	headerValues := [...]string{"nosniff", "no-referrer", "DENY", defaultCSP, hstsHeader}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["X-Content-Type-Options"] = headerValues[0:1:1] // like Set, without an allocation
		h["Referrer-Policy"] = headerValues[1:2:2]
		h["X-Frame-Options"] = headerValues[2:3:3]
		h["Content-Security-Policy"] = headerValues[3:4:4] // pages set their own
		if overTLS {
			h["Strict-Transport-Security"] = headerValues[4:5:5]
		}
		if allowOrigin(h, r, origins) && r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		setDeadlines(w, r, writeTimeout)
		checked.ServeHTTP(w, r)
	})
}

// allowOrigin sets the CORS headers if the origin is allowed, and reports whether it
// is.
func allowOrigin(h http.Header, r *http.Request, origins *origins) bool {
	if !origins.isAllowed(r) {
		return false
	}
	h.Add("Vary", "Origin")
	h.Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
	h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "Content-Type, X-API-Key, Authorization, Idempotency-Key, Prefer, X-Request-Id")
	h.Set("Access-Control-Expose-Headers", "X-Request-Id, Retry-After, RateLimit, RateLimit-Policy, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, Link, Location, Idempotency-Replayed, Preference-Applied")
	h.Set("Access-Control-Max-Age", "600")
	return true
}

// setDeadlines sets the read and write deadlines of the connection. The read deadline
// is cleared at the end of the body, because it would interrupt a long response.
func setDeadlines(w http.ResponseWriter, r *http.Request, writeTimeout time.Duration) {
	control := http.NewResponseController(w)
	now := time.Now()
	_ = control.SetWriteDeadline(now.Add(writeTimeout))
	if r.ContentLength == 0 {
		return
	}
	if control.SetReadDeadline(now.Add(bodyReadTimeout)) == nil {
		r.Body = &deadlineBody{ReadCloser: r.Body, control: control}
	}
}

// deadlineBody clears the read deadline at the end of the body.
type deadlineBody struct {
	io.ReadCloser
	control *http.ResponseController
}

func (b *deadlineBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err //nolint:wrapcheck // io.Reader's contract
}

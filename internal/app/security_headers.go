package app

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"time"

	"agentmarket.space/server/compat"
	"agentmarket.space/server/models"
)

const (
	// defaultCSP is the policy for answers that are no pages, as the OWASP REST
	// Security Cheat Sheet has it.
	defaultCSP = "default-src 'none'; frame-ancestors 'none'"
	// hstsHeader is a year, as the OWASP Secure Headers Project has it.
	hstsHeader = "max-age=31536000"
)

// bodyReadTimeout is how long a client may take to send a request's body.
const bodyReadTimeout = 15 * time.Second

// secureHeaders sets the headers that keep browsers from harm, answers them when they
// ask for leave (CORS), turns away writes that another site's page sends, and
// puts a deadline on reading and answering.
func secureHeaders(origins []string, answerTime time.Duration, overTLS bool, next http.Handler) http.Handler {
	crossOrigin := http.NewCrossOriginProtection()
	for _, origin := range origins {
		if err := crossOrigin.AddTrustedOrigin(origin); err != nil {
			continue // graph.NewServer refuses a malformed one at start
		}
	}
	crossOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		compat.WriteError(w, r, models.Errorf(models.Forbidden, "a page of another origin may not do this"), nil)
	}))
	guarded := crossOrigin.Handler(next)
	safe := [...]string{"nosniff", "no-referrer", "DENY", defaultCSP, hstsHeader}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["X-Content-Type-Options"] = safe[0:1:1] // as Set would, without an allocation
		h["Referrer-Policy"] = safe[1:2:2]
		h["X-Frame-Options"] = safe[2:3:3]
		h["Content-Security-Policy"] = safe[3:4:4] // pages have their own
		if overTLS {
			h["Strict-Transport-Security"] = safe[4:5:5]
		}
		if allowOrigin(h, r, origins) && r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		setDeadlines(w, r, answerTime)
		guarded.ServeHTTP(w, r)
	})
}

// allowOrigin answers a page of an allowed origin and reports whether it is one.
func allowOrigin(h http.Header, r *http.Request, origins []string) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || !slices.Contains(origins, origin) {
		return false
	}
	h.Add("Vary", "Origin")
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "Content-Type, X-API-Key, Authorization, Idempotency-Key, Prefer, X-Request-Id")
	h.Set("Access-Control-Expose-Headers", "X-Request-Id, Retry-After, RateLimit, RateLimit-Policy, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, Link, Location, Idempotency-Replayed, Preference-Applied")
	h.Set("Access-Control-Max-Age", "600")
	return true
}

// setDeadlines bounds how long the connection waits for the client. The read
// deadline goes when the body is in: past it, it would end a long answer.
func setDeadlines(w http.ResponseWriter, r *http.Request, answerTime time.Duration) {
	control := http.NewResponseController(w)
	now := time.Now()
	_ = control.SetWriteDeadline(now.Add(answerTime))
	if r.ContentLength == 0 {
		return
	}
	if control.SetReadDeadline(now.Add(bodyReadTimeout)) == nil {
		r.Body = &deadlineBody{ReadCloser: r.Body, control: control}
	}
}

// deadlineBody lifts the read deadline at the end of the body.
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

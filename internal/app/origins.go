package app

import (
	"net/http"
	"net/url"
	"strings"

	"agentmarket.space/server/internal/config"
)

// origins decides which web pages may call the server from a browser.
type origins struct {
	public  string              // of the public URL
	allowed map[string]struct{} // of other hosts, allowed by the operator
}

// newOrigins returns the origins for a public URL and the configured origins. The
// settings have been validated; anything else matches no page.
func newOrigins(publicURL string, configured []string) *origins {
	o := &origins{allowed: make(map[string]struct{}, len(configured))}
	if u, err := url.Parse(publicURL); err == nil {
		o.public, _ = config.NormalizeOrigin(u.Scheme + "://" + u.Host)
	}
	for _, text := range configured {
		if origin, err := config.NormalizeOrigin(text); err == nil {
			o.allowed[origin] = struct{}{}
		}
	}
	return o
}

// isAllowed reports whether the operator has allowed the origin of a request.
func (o *origins) isAllowed(r *http.Request) bool {
	_, ok := o.allowed[requestOrigin(r)]
	return ok
}

// isTrusted reports whether a request comes from an allowed origin or from the one of
// the public URL. The latter is the server's own, even if a proxy changes the Host.
func (o *origins) isTrusted(r *http.Request) bool {
	origin := requestOrigin(r)
	return origin != "" && origin == o.public || o.isAllowed(r)
}

// acceptsSocket reports whether a WebSocket may be opened: by clients that send no
// Origin header, which browsers always send, and by pages of a trusted origin or of the
// host that the request is for.
func (o *origins) acceptsSocket(r *http.Request) bool {
	if r.Header.Get("Origin") == "" || o.isTrusted(r) {
		return true
	}
	origin := requestOrigin(r)
	scheme, _, _ := strings.Cut(origin, "://")
	own, err := config.NormalizeOrigin(scheme + "://" + r.Host)
	return err == nil && origin == own
}

// requestOrigin returns the origin of a request in its normal form, or "".
func requestOrigin(r *http.Request) string {
	text := r.Header.Get("Origin")
	if text == "" {
		return ""
	}
	origin, err := config.NormalizeOrigin(text)
	if err != nil {
		return ""
	}
	return origin
}

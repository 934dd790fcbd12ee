package app

import (
	"net/http"
	"net/url"
	"path"
	"strings"
)

// basePath returns the path of the public URL, "" at the root of a host.
func (a *App) basePath() string {
	u, err := url.Parse(a.config.PublicURL)
	if err != nil {
		return ""
	}
	return strings.TrimRight(u.Path, "/")
}

// belowBasePath serves root, in the middleware wrap, below base as well as at the root. So it does not matter
// whether the reverse proxy removes the path of the public URL from requests. If base is
// a path of the server itself, such as /api, the proxy must remove it.
func belowBasePath(base string, mux *http.ServeMux, root http.Handler, wrap func(http.Handler) http.Handler) http.Handler {
	next := wrap(root)
	if base == "" || isRESTPath(base) {
		return next
	}
	if _, pattern := mux.Handler(&http.Request{Method: http.MethodGet, URL: &url.URL{Path: base}}); pattern != "" {
		return next
	}
	stripped := http.StripPrefix(base, next)
	slash := wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { redirect(w, r, base+"/") }))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch escaped := r.URL.EscapedPath(); {
		case escaped == base: // the relative URLs of the page at the root need the slash
			slash.ServeHTTP(w, r)
		case strings.HasPrefix(escaped, base+"/"):
			stripped.ServeHTTP(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// isRESTPath reports whether a path is one of the REST API.
func isRESTPath(p string) bool { return p == "/api" || strings.HasPrefix(p, "/api/") }

// cleanPath returns the escaped path of a request without empty, "." and ".." elements,
// like [http.ServeMux]. The redirects of ServeMux would lack the path of the public URL.
func cleanPath(r *http.Request) string {
	escaped := r.URL.EscapedPath()
	if r.Method == http.MethodConnect || !strings.HasPrefix(escaped, "/") {
		return escaped
	}
	clean := path.Clean(escaped)
	if strings.HasSuffix(escaped, "/") && clean != "/" {
		clean += "/"
	}
	return clean
}

// redirect sends the client to a path of the same host, with the same query.
func redirect(w http.ResponseWriter, r *http.Request, to string) {
	if r.URL.RawQuery != "" {
		to += "?" + r.URL.RawQuery
	}
	http.Redirect(w, r, to, http.StatusTemporaryRedirect) //nolint:gosec // a clean path, so it cannot name another host
}

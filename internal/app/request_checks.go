package app

import (
	"net/http"
	"strings"

	"agentmarket.space/server/models"
)

// maxShownCoding is the number of characters of an unknown encoding that an error repeats.
const maxShownCoding = 20

// singleHeaders returns the headers that a request may have only once. Servers and proxies
// differ in which of two values they use.
func singleHeaders() []string {
	return []string{"Idempotency-Key", "X-Api-Key", "Authorization", "Content-Type", "Content-Encoding", "Origin", "Sec-Fetch-Site"}
}

// rejectAmbiguous rejects requests that two programs could read differently with
// INVALID_INPUT, and bodies with a Content-Encoding with UNSUPPORTED_MEDIA_TYPE.
func rejectAmbiguous(next http.Handler) http.Handler {
	single := singleHeaders()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hasAmbiguousLength(r) {
			w.Header().Set("Connection", "close") // what follows may be a part of this request
			writeError(w, r, models.Errorf(models.InvalidInput, "the request has an ambiguous length: send either one Content-Length header, or Transfer-Encoding over HTTP/1.1"), nil)
			return
		}
		for _, name := range single {
			if len(r.Header[name]) > 1 {
				writeError(w, r, models.Errorf(models.InvalidInput, "the request has more than one %s header", name), nil)
				return
			}
		}
		if coding := unsupportedCoding(r); coding != "" {
			w.Header().Set("Accept-Encoding", "identity")
			writeError(w, r, models.Errorf(models.UnsupportedMedia, "the Content-Encoding %q is not supported: send the body without a Content-Encoding", coding), nil)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// unsupportedCoding returns the first encoding of the body other than identity, or "".
func unsupportedCoding(r *http.Request) string {
	if r.ContentLength == 0 {
		return ""
	}
	for _, value := range r.Header["Content-Encoding"] {
		for coding := range strings.SplitSeq(value, ",") {
			if coding = strings.TrimSpace(coding); coding != "" && !strings.EqualFold(coding, "identity") {
				return coding[:min(len(coding), maxShownCoding)]
			}
		}
	}
	return ""
}

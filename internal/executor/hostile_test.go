package executor_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"

	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestEndpoint_hostile checks that a run against a hostile endpoint ends in time,
// limits what it reads and returns no result.
func TestEndpoint_hostile(t *testing.T) {
	t.Parallel()
	var compressed bytes.Buffer
	zip := gzip.NewWriter(&compressed)
	if _, err := io.WriteString(zip, `{"result":"`+strings.Repeat("a", 1<<20)+`"}`); err != nil || zip.Close() != nil {
		t.Fatal(err)
	}
	respond := func(header, value string, body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set(header, value)
			_, _ = w.Write(body)
		}
	}
	result := []byte(`{"result":"x"}`)
	for name, row := range map[string]struct {
		handler http.HandlerFunc
		message string
		want    models.Code
	}{
		"an endless body": {endlessBody(nil), "longer than 2 MiB", models.ExecutionFailed},
		"a slow body": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // then net/http notices when the client closes the connection
			_, _ = io.WriteString(w, "a")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, "in time", models.ExecutionTimeout},
		"endless headers":          {respond("X-Filler", strings.Repeat("a", 80<<10), result), "endpoint failed", models.ExecutionFailed},
		"a short body":             {respond("Content-Length", "100", result), "endpoint failed", models.ExecutionFailed},
		"a gzip bomb":              {respond("Content-Encoding", "gzip", compressed.Bytes()), "compressed", models.ExecutionFailed},
		"a wrong Content-Encoding": {respond("Content-Encoding", "br", result), "compressed", models.ExecutionFailed},
		"an image":                 {respond("Content-Type", "image/png", result), "neither JSON nor text", models.ExecutionFailed},
		"a multipart body":         {respond("Content-Type", "multipart/form-data; boundary=x", result), "neither JSON nor text", models.ExecutionFailed},
		"an invalid media type":    {respond("Content-Type", "jason;;", result), "neither JSON nor text", models.ExecutionFailed},
		"deeply nested JSON":       {respond("X", "y", []byte(strings.Repeat("[", 1<<20))), "must respond with", models.ExecutionFailed},
		"a redirect to itself": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusPermanentRedirect)
		}, "returned status 308", models.ExecutionFailed},
		"a redirect to a private address": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data", http.StatusFound)
		}, "returned status 302", models.ExecutionFailed},
		"an endless error response": {endlessBody(func(w http.ResponseWriter) { w.WriteHeader(http.StatusTeapot) }), "returned status 418", models.ExecutionFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timeout := testutil.Timeout
			if row.want == models.ExecutionTimeout {
				timeout = shortTimeout
			}
			outcome, err := newEndpointAgent(t, timeout, row.handler).run(t.Context(), newJob())
			if models.CodeOf(err) != row.want || !strings.Contains(err.Error(), row.message) || outcome.Result != "" || outcome.Promised {
				t.Errorf("got %.100q, %v, want %s with %q", outcome.Result, err, row.want, row.message)
			}
		})
	}
	identity, err := newEndpointAgent(t, testutil.Timeout, respond("Content-Encoding", "identity", result)).run(t.Context(), newJob())
	if err != nil || identity.Result != "x" {
		t.Errorf("a response with Content-Encoding identity returned %+v, %v", identity, err)
	}
}

// endlessBody returns a handler that writes until the client closes the connection.
func endlessBody(begin func(http.ResponseWriter)) http.HandlerFunc {
	filler := bytes.Repeat([]byte("a"), 64<<10)
	return func(w http.ResponseWriter, _ *http.Request) {
		if begin != nil {
			begin(w)
		}
		for {
			if _, err := w.Write(filler); err != nil {
				return
			}
		}
	}
}

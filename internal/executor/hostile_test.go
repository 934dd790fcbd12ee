package executor_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"

	"agentmarket.space/server/models"
)

// TestEndpoint_hostile: an endpoint is a stranger's. Whatever it sends, the run ends
// in time, reads no more than it may and gives no result.
func TestEndpoint_hostile(t *testing.T) {
	t.Parallel()
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	if _, err := io.WriteString(zip, `{"result":"`+strings.Repeat("a", 1<<20)+`"}`); err != nil || zip.Close() != nil {
		t.Fatal(err)
	}
	sends := func(header, value string, body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set(header, value)
			_, _ = w.Write(body)
		}
	}
	result := []byte(`{"result":"x"}`)
	for name, row := range map[string]struct {
		answer http.HandlerFunc
		says   string
		want   models.Code
	}{
		"a body without an end": {endlessBody(nil), "too long", models.ExecutionFailed},
		"a body that drips": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "a")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, "in time", models.ExecutionTimeout},
		"headers without an end":    {sends("X-Filler", strings.Repeat("a", 80<<10), result), "could not be used", models.ExecutionFailed},
		"less than it said":         {sends("Content-Length", "100", result), "could not be used", models.ExecutionFailed},
		"a bomb":                    {sends("Content-Encoding", "gzip", packed.Bytes()), "compressed", models.ExecutionFailed},
		"plain JSON said to be one": {sends("Content-Encoding", "br", result), "compressed", models.ExecutionFailed},
		"a picture":                 {sends("Content-Type", "image/png", result), "neither JSON nor text", models.ExecutionFailed},
		"parts":                     {sends("Content-Type", "multipart/form-data; boundary=x", result), "neither JSON nor text", models.ExecutionFailed},
		"no type at all":            {sends("Content-Type", "jason;;", result), "neither JSON nor text", models.ExecutionFailed},
		"deep JSON":                 {sends("X", "y", []byte(strings.Repeat("[", 1<<20))), "did not answer with", models.ExecutionFailed},
		"a redirect to itself": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusPermanentRedirect)
		}, "answered 308", models.ExecutionFailed},
		"a redirect inside": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data", http.StatusFound)
		}, "answered 302", models.ExecutionFailed},
		"an endless refusal": {endlessBody(func(w http.ResponseWriter) { w.WriteHeader(http.StatusTeapot) }), "answered 418", models.ExecutionFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			within := longTimeout
			if row.want == models.ExecutionTimeout {
				within = shortTimeout
			}
			outcome, err := newEndpointAgent(t, within, row.answer).run(t.Context(), newJob())
			if models.CodeOf(err) != row.want || !strings.Contains(err.Error(), row.says) || outcome.Result != "" || outcome.Promised {
				t.Errorf("got %.100q, %v, want %s with %q", outcome.Result, err, row.want, row.says)
			}
		})
	}
	identity, err := newEndpointAgent(t, longTimeout, sends("Content-Encoding", "identity", result)).run(t.Context(), newJob())
	if err != nil || identity.Result != "x" {
		t.Errorf("an answer that says it is not compressed gave %+v, %v", identity, err)
	}
}

// endlessBody answers until the client has had enough.
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

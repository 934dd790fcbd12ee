package graph

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// queryEventStream sends a document, accepting only an event stream, and returns the headers
// and the events.
func (b *bundle) queryEventStream(t *testing.T, c caller, document string, headers ...string) (http.Header, string) {
	t.Helper()
	body, err := json.Marshal(map[string]string{"query": document})
	testutil.Must(t, err)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.url, strings.NewReader(string(body)))
	testutil.Must(t, err)
	request.Header = http.Header{"Content-Type": {"application/json"}, "Accept": {"text/event-stream"}}
	if c.key != "" {
		request.Header.Set("X-Api-Key", c.key)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	testutil.Must(t, err)
	defer func() { testutil.Must(t, response.Body.Close()) }()
	events, err := io.ReadAll(response.Body)
	testutil.Must(t, err)
	testutil.Equal(t, "media type", response.Header.Get("Content-Type"), "text/event-stream; charset=utf-8")
	return response.Header, string(events)
}

// TestEventStream_headers checks that a mutation answered by an event stream has the
// headers of a JSON response.
func TestEventStream_headers(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	poster := b.registerAgent(t, "")
	const post = `mutation { postTask(input: {title: "T", description: "D", budget: 2}) { task { id } } }`
	first, events := b.queryEventStream(t, poster, post, "Idempotency-Key", "k")
	again, repeated := b.queryEventStream(t, poster, post, "Idempotency-Key", "k")
	if first.Get("Idempotency-Replayed") != "" || again.Get("Idempotency-Replayed") != "true" || events != repeated {
		t.Errorf("got replayed %q, then %q\n%s\n%s", first.Get("Idempotency-Replayed"), again.Get("Idempotency-Replayed"), events, repeated)
	}
	plain := b.query(t, poster, post, "Idempotency-Key", "k")
	for _, name := range []string{"Idempotency-Replayed", "Cache-Control", "Vary", "X-Content-Type-Options"} {
		testutil.Equal(t, name, again.Get(name), plain.header.Get(name))
	}
	b.Settings.RegistrationInterval, b.Settings.RegistrationBurst = time.Minute, 0
	limited, events := b.queryEventStream(t, caller{}, `mutation { registerAgent(input: {name: "A"}) { apiKey } }`)
	if limited.Get("Retry-After") == "" || !strings.Contains(events, string(models.RateLimited)) {
		t.Errorf("got Retry-After %q with %s", limited.Get("Retry-After"), events)
	}
}

package app

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"agentmarket.space/server/internal/config"
)

// TestRateLimiter checks the request limits by API key and by address, and the quota of
// registrations.
func TestRateLimiter(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, func(c *config.Config) { c.RateLimits = "on" })
	key := b.register(t, "")
	var limited testResponse
	for range 1000 { // a burst of 200, plus the refill during the test
		if got := b.do(t, http.MethodGet, "/api/wallet", "", "X-API-Key", key); got.StatusCode == http.StatusTooManyRequests {
			limited = got
			break
		}
	}
	if limited.Response == nil {
		t.Fatal("1000 requests were allowed")
	}
	for _, part := range []string{`"success":false`, `"code":"RATE_LIMITED"`, `"balance":100`} {
		if !strings.Contains(limited.body, part) {
			t.Errorf("the response %s does not contain %s", limited.body, part)
		}
	}
	for _, name := range []string{"Retry-After", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit", "RateLimit-Policy"} {
		if limited.Header.Get(name) == "" {
			t.Errorf("the response has no header %s", name)
		}
	}
	if got := b.do(t, http.MethodPost, "/graphql", `{"query":"{ viewer { id } }"}`, "X-API-Key", key); got.StatusCode == http.StatusTooManyRequests &&
		!strings.Contains(got.body, `"extensions":{"code":"RATE_LIMITED","requestId":`) {
		t.Errorf("got GraphQL response %s", got.body)
	}
	if got := b.do(t, http.MethodGet, "/api/tasks", ""); got.StatusCode != http.StatusOK {
		t.Errorf("anonymous request: got %d", got.StatusCode)
	}
	registered := 1
	for ; registered < 100; registered++ {
		if got := b.do(t, http.MethodPost, "/api/agents/register", `{"name":"Bot"}`); got.StatusCode != http.StatusOK {
			if !strings.Contains(got.body, "too many agents were registered from this address") {
				t.Errorf("got error %s", got.body)
			}
			break
		}
	}
	if registered < 60 || registered > 65 {
		t.Errorf("%d registrations were allowed at once", registered)
	}
}

// TestKeyedLimiter checks the rate and the burst with a fake clock.
func TestKeyedLimiter(t *testing.T) {
	t.Parallel()
	now := time.Unix(0, 0)
	l, err := newKeyedLimiter(callRate{interval: 100 * time.Millisecond, burst: 20}, 0, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if remaining, wait := l.allow("a"); wait != 0 || remaining != 19-i {
			t.Fatalf("request %d: %d remaining, wait %s", i, remaining, wait)
		}
	}
	if _, wait := l.allow("a"); wait != 100*time.Millisecond {
		t.Errorf("wait %s", wait)
	}
	if _, wait := l.allow("b"); wait != 0 {
		t.Error("another caller is limited too")
	}
	now = now.Add(500 * time.Millisecond)
	for range 5 {
		if _, wait := l.allow("a"); wait != 0 {
			t.Errorf("after half a second: wait %s", wait)
		}
	}
	if _, wait := l.allow("a"); wait == 0 {
		t.Error("half a second refilled more than 5 requests")
	}
}

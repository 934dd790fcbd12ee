package examples_test

import (
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

// TestReceivers: the receivers accept the server's webhooks, and print one that arrives
// twice once. They reject requests that were changed, have a wrong or no signature, or are
// older than five minutes. Without a secret they reject everything.
func TestReceivers(t *testing.T) {
	t.Parallel()
	for name, run := range map[string]exampleCommand{
		"webhook-receiver-go": goExample("webhook-receiver-go"), "webhook-receiver-node": nodeExample("webhook-receiver-node/receiver.mjs"),
		"webhook-receiver-python": pythonExample("webhook-receiver-python/receiver.py"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := run(t)
			var address atomic.Pointer[string]
			seen := make(chan webhookRequest, 10)
			front, env := testserver.ServeTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					return
				}
				one := webhookRequest{r.Header, body}
				w.WriteHeader(one.sendTo(t, *address.Load()))
				seen <- one
			}))
			server := testserver.Start(t, env...)
			agent := server.Register("Receiver", map[string]any{"webhookUrl": front + "/", "capabilities": []string{"shouting"}})
			poster := server.Register("Poster", nil)
			example := startExample(t, args, "AGENTMARKET_WEBHOOK_SECRET="+agent.WebhookSecret, "PORT=0")
			address.Store(new(example.listenAddress(t)))
			told := func() {
				t.Helper()
				id := mustPostTask(t, server, poster.Key, "hello")
				if got, want := example.nextLine(t), "task.posted: "+id+` "Shout it"`; got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
			told()
			genuine := testutil.Receive(t, "a webhook", seen)
			for change, changed := range forgedRequests(t, genuine, agent.WebhookSecret) {
				if status := changed.sendTo(t, *address.Load()); status != http.StatusUnauthorized {
					t.Errorf("%s: status %d", change, status)
				}
			}
			if status := genuine.sendTo(t, *address.Load()); status/100 != 2 {
				t.Errorf("a duplicate delivery: status %d", status)
			}
			told() // the next line is about the next request
			unset := startExample(t, args, "AGENTMARKET_WEBHOOK_SECRET=", "PORT=0")
			if status := forgedRequests(t, genuine, agent.WebhookSecret)["nobody's secret"].sendTo(t, unset.listenAddress(t)); status != http.StatusUnauthorized {
				t.Errorf("without a secret an unsigned request: status %d", status)
			}
		})
	}
}

// webhookRequest is a request as a receiver gets it.
type webhookRequest struct {
	header http.Header
	body   []byte
}

// sendTo sends the request and returns the status of the response, or 502 without one.
func (s webhookRequest) sendTo(t *testing.T, address string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address+"/", bytes.NewReader(s.body))
	if err != nil {
		return http.StatusBadGateway
	}
	request.Header = s.header.Clone()
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return http.StatusBadGateway // the receiver stops first when the test ends
	}
	_ = answer.Body.Close()
	return answer.StatusCode
}

// forgedRequests returns invalid or expired variants of a genuine request.
func forgedRequests(t *testing.T, genuine webhookRequest, secret string) map[string]webhookRequest {
	t.Helper()
	with := func(change func(http.Header)) webhookRequest {
		header := genuine.header.Clone()
		change(header)
		return webhookRequest{header, genuine.body}
	}
	signed := func(secret string, at time.Time) webhookRequest {
		hook, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		signature, err := hook.Sign(genuine.header.Get("webhook-id"), at, genuine.body)
		if err != nil {
			t.Fatal(err)
		}
		return with(func(header http.Header) {
			header.Set("webhook-timestamp", strconv.FormatInt(at.Unix(), 10))
			header.Set("webhook-signature", signature)
		})
	}
	const other = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
	return map[string]webhookRequest{
		"another body":  {genuine.header, bytes.Replace(genuine.body, []byte("25"), []byte("26"), 1)},
		"a longer body": {genuine.header, append(bytes.Clone(genuine.body), ' ')},
		"another id":    with(func(h http.Header) { h.Set("webhook-id", "another") }),
		"no signature":  with(func(h http.Header) { h.Del("webhook-signature") }),
		"no timestamp":  with(func(h http.Header) { h.Del("webhook-timestamp") }),
		"a cut signature": with(func(h http.Header) {
			h.Set("webhook-signature", strings.TrimRight(h.Get("webhook-signature"), "=")[:20])
		}),
		"another's secret":   signed(other, time.Now()),
		"nobody's secret":    signed("whsec_", time.Now()),
		"an old one":         signed(secret, time.Now().Add(-6*time.Minute)),
		"one of tomorrow":    signed(secret, time.Now().Add(24*time.Hour)),
		"no number for time": with(func(h http.Header) { h.Set("webhook-timestamp", "now") }),
	}
}

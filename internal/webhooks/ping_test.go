package webhooks

import (
	"encoding/json"
	"net/http"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

func TestPing(t *testing.T) {
	t.Parallel()

	t.Run("a ping is signed and returns its request and response", func(t *testing.T) {
		t.Parallel()
		r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Bot", "yes")
			_, _ = w.Write([]byte("pong"))
		})
		b := open(t, settings{roots: certPool(r), allowNetworks: loopback()})
		agent, secret := b.addSubscriber(t, r.URL, "research")

		out, err := b.Ping(t.Context(), agent)
		testutil.Must(t, err)
		got := r.next(t)
		testutil.Equal(t, "body", string(got.body), out.RequestBody)
		var ping pingPayload
		testutil.Must(t, json.Unmarshal(got.body, &ping))
		testutil.Equal(t, "event", ping.Event, "ping")
		testutil.Equal(t, "id", ping.Ping.ID, got.header.Get("X-AgentMarket-Delivery"))
		testutil.Equal(t, "event header", got.header.Get("X-AgentMarket-Event"), "ping")
		testutil.Equal(t, "X-AgentMarket-Signature", got.header.Get("X-AgentMarket-Signature"), outbound.Sign(secret, got.body))
		standard, err := standardwebhooks.NewWebhook(secret)
		testutil.Must(t, err)
		testutil.Must(t, standard.Verify(got.body, got.header))
		testutil.Equal(t, "status", deref(out.Attempt.ResponseStatus), any(200))
		testutil.Equal(t, "response body", out.Attempt.ResponseBody, "pong")
		testutil.Equal(t, "error", deref(out.Attempt.Error), nil)
		for _, line := range out.Attempt.RequestHeaders {
			testutil.Equal(t, line.Name, got.header.Get(line.Name), line.Value)
		}
		testutil.Equal(t, "request headers", len(out.Attempt.RequestHeaders), 9)
		testutil.Equal(t, "response header", headerValue(out.Attempt.ResponseHeaders, "X-Bot"), "yes")
		testutil.Equal(t, "deliveries", len(b.deliveries(t, agent)), 0)
	})

	t.Run("a ping never changes the webhook, active or suspended", func(t *testing.T) {
		t.Parallel()
		for _, code := range []int{http.StatusOK, http.StatusGone} {
			r := newReceiver(t, respondWith(code))
			b := open(t, settings{roots: certPool(r), allowNetworks: loopback()})
			agent, _ := b.addSubscriber(t, r.URL, "research")
			before := b.webhook(t, agent)
			if code == http.StatusOK {
				before.Status, before.FailingSince = models.WebhookSuspended, new(b.timestamp())
				b.write(t, func(tx *database.Tx) error { return tx.Save(before).Error })
			}
			out, err := b.Ping(t.Context(), agent)
			testutil.Must(t, err)
			testutil.Equal(t, "status", deref(out.Attempt.ResponseStatus), any(code))
			after := b.webhook(t, agent)
			testutil.Equal(t, "status", after.Status, before.Status)
			testutil.Equal(t, "failing since", deref(after.FailingSince), deref(before.FailingSince))
		}
	})

	t.Run("pings count against the limit of concurrent requests", func(t *testing.T) {
		t.Parallel()
		release := make(chan struct{})
		r := newReceiver(t, func(http.ResponseWriter, *http.Request) { <-release })
		b := open(t, settings{roots: certPool(r), allowNetworks: loopback()})
		agent, _ := b.addSubscriber(t, r.URL, "research")
		pinged := make(chan error, maxPerEndpoint)
		for range maxPerEndpoint {
			go func() {
				_, err := b.Ping(t.Context(), agent)
				pinged <- err
			}()
			r.next(t)
		}
		_, err := b.Ping(t.Context(), agent)
		testutil.Equal(t, "code", models.CodeOf(err), models.Conflict)
		close(release)
		for range maxPerEndpoint {
			testutil.Must(t, mustReceive(t, pinged))
		}
	})

	t.Run("without a webhook a ping is a conflict", func(t *testing.T) {
		t.Parallel()
		b := open(t, settings{})
		_, err := b.Ping(t.Context(), b.addAgent(t))
		testutil.Equal(t, "code", models.CodeOf(err), models.Conflict)
	})
}

// headerValue returns the value of a header.
func headerValue(lines []models.Header, name string) string {
	for _, line := range lines {
		if line.Name == name {
			return line.Value
		}
	}
	return ""
}

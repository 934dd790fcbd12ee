package webhooks

import (
	"encoding/json"
	"net/http"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/models"
)

func TestPing(t *testing.T) {
	t.Parallel()

	t.Run("it is sent at once, signed, and told of with what was sent and answered", func(t *testing.T) {
		t.Parallel()
		r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Bot", "yes")
			_, _ = w.Write([]byte("pong"))
		})
		b := open(t, settings{roots: certPool(r), allowNetworks: loopback()})
		agent, secret := b.addSubscriber(t, r.URL, "research")

		out, err := b.Ping(t.Context(), agent)
		must(t, err)
		got := r.next(t)
		equal(t, "body", string(got.body), out.RequestBody)
		var told pingPayload
		must(t, json.Unmarshal(got.body, &told))
		equal(t, "event", told.Event, "ping")
		equal(t, "id", told.Ping.ID, got.header.Get("X-AgentMarket-Delivery"))
		equal(t, "event header", got.header.Get("X-AgentMarket-Event"), "ping")
		equal(t, "documented header", got.header.Get("X-AgentMarket-Signature"), outbound.Sign(secret, got.body))
		standard, err := standardwebhooks.NewWebhook(secret)
		must(t, err)
		must(t, standard.Verify(got.body, got.header))
		equal(t, "status", deref(out.Attempt.ResponseStatus), any(200))
		equal(t, "answer", out.Attempt.ResponseBody, "pong")
		equal(t, "error", deref(out.Attempt.Error), nil)
		for _, line := range out.Attempt.RequestHeaders {
			equal(t, "sent "+line.Name, got.header.Get(line.Name), line.Value)
		}
		equal(t, "headers sent", len(out.Attempt.RequestHeaders), 9)
		equal(t, "an answer's header", headerValue(out.Attempt.ResponseHeaders, "X-Bot"), "yes")
		equal(t, "deliveries", len(b.deliveries(t, agent)), 0)
	})

	t.Run("a suspended webhook can be tried, and neither success nor failure changes it", func(t *testing.T) {
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
			must(t, err)
			equal(t, "status", deref(out.Attempt.ResponseStatus), any(code))
			after := b.webhook(t, agent)
			equal(t, "status", after.Status, before.Status)
			equal(t, "failing since", deref(after.FailingSince), deref(before.FailingSince))
		}
	})

	t.Run("it waits for no more than others do", func(t *testing.T) {
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
		equal(t, "code", models.CodeOf(err), models.Conflict)
		close(release)
		for range maxPerEndpoint {
			must(t, mustReceive(t, pinged))
		}
	})

	t.Run("without a webhook there is nothing to ping", func(t *testing.T) {
		t.Parallel()
		b := open(t, settings{})
		_, err := b.Ping(t.Context(), b.addAgent(t))
		equal(t, "code", models.CodeOf(err), models.Conflict)
	})
}

// headerValue is the value of a header.
func headerValue(lines []models.Header, name string) string {
	for _, line := range lines {
		if line.Name == name {
			return line.Value
		}
	}
	return ""
}

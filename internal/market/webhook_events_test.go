package market_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/internal/webhooks"
	"agentmarket.space/server/models"
)

// webhookReceiver records the events it receives.
type webhookReceiver struct {
	mu     sync.Mutex
	byTask map[string][]string // by task id: path and event
}

func (r *webhookReceiver) ServeHTTP(_ http.ResponseWriter, req *http.Request) {
	text, err := io.ReadAll(req.Body)
	var event struct {
		Event string
		Task  struct{ ID, Status string }
	}
	if err != nil || json.Unmarshal(text, &event) != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byTask[event.Task.ID] = append(r.byTask[event.Task.ID], req.URL.Path+" "+event.Event)
}

// eventsOf returns the events of a task, sorted.
func (r *webhookReceiver) eventsOf(task models.Task) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(slices.Values(r.byTask[task.ID]))
}

// newWithWebhooks opens a market that delivers webhooks with client.
func newWithWebhooks(t *testing.T, client *outbound.Client) (b *markettest.Bundle, hooks *webhooks.Webhooks) {
	t.Helper()
	b = markettest.New(t, func(deps *market.Deps) {
		hooks = webhooks.New(webhooks.Options{DB: deps.DB, Events: deps.Events, Client: client, Cipher: deps.Cipher, Now: deps.Now, Logger: deps.Logger})
		deps.Webhooks = hooks
	})
	return b, hooks
}

// TestWebhookEvents: the poster and the worker of a task receive the events that they
// subscribe to. Other agents receive none.
func TestWebhookEvents(t *testing.T) {
	t.Parallel()
	r := &webhookReceiver{byTask: map[string][]string{}}
	receiver := httptest.NewTLSServer(r)
	t.Cleanup(receiver.Close)
	roots := x509.NewCertPool()
	roots.AddCert(receiver.Certificate())
	b, hooks := newWithWebhooks(t, outbound.New(outbound.Options{RootCAs: roots, AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}))
	poster, worker, defaults, unsubscribed := b.NewAgent(), b.NewAgent(), b.NewAgent(), b.NewAgent()
	subscribe := func(agent auth.Actor, path string, events []models.WebhookEvent) {
		t.Helper()
		_, err := b.SetWebhook(t.Context(), agent, receiver.URL+path, events)
		testutil.Must(t, err)
	}
	every := models.WebhookEvents()
	subscribe(poster, "/nowhere", every)
	subscribe(poster, "/poster", nil) // keeps the events
	subscribe(worker, "/worker", []models.WebhookEvent{models.WebhookTaskCompleted, models.WebhookTaskCompleted, models.WebhookTaskCancelled, models.WebhookTaskExpired})
	subscribe(defaults, "/defaults", nil)
	subscribe(unsubscribed, "/unsubscribed", every)
	subscribe(unsubscribed, "/unsubscribed", []models.WebhookEvent{})
	_, err := b.SetWebhook(t.Context(), unsubscribed, receiver.URL, []models.WebhookEvent{"task.rated"})
	if models.CodeOf(err) != models.InvalidInput {
		t.Errorf("an unknown event returned %v", err)
	}
	testutil.Must(t, hooks.Start(t.Context()))
	t.Cleanup(func() { testutil.Must(t, hooks.Stop(context.WithoutCancel(t.Context()))) })

	completed, cancelled, expired, unnoticed := b.NewTask(poster, 5), b.NewTask(poster, 5), b.NewTask(poster, 5), b.NewTask(defaults, 5)
	mustAccept(t, b, worker, completed)
	_, err = b.Complete(t.Context(), worker, completed.ID, "done")
	testutil.Must(t, err)
	mustAccept(t, b, worker, cancelled)
	mustAccept(t, b, unsubscribed, unnoticed)
	_, err = b.Complete(t.Context(), unsubscribed, unnoticed.ID, "done")
	testutil.Must(t, err)
	hired, err := b.Execute(t.Context(), poster, market.ExecuteInput{AgentID: worker.AgentID, TaskDescription: "Do it.", Budget: 10})
	testutil.Must(t, err)
	b.Clock.Advance(25 * time.Hour) // the lease lapses
	_, err = b.Cancel(t.Context(), poster, cancelled.ID)
	testutil.Must(t, err)
	b.Clock.Advance(30 * 24 * time.Hour)
	mustSweep(t, b)

	want := map[string]struct {
		task models.Task
		want []string
	}{
		"completed": {completed, []string{"/poster task.assigned", "/poster task.completed", "/worker task.completed"}},
		"cancelled": {cancelled, []string{"/poster task.assigned", "/poster task.cancelled", "/worker task.cancelled"}},
		"expired":   {expired, []string{"/poster task.expired"}},
		"hired":     {hired.Task, []string{"/poster task.assigned", "/poster task.completed", "/worker task.completed"}},
		"unnoticed": {unnoticed, nil},
	}
	testutil.Eventually(t, "all jobs completed", func() bool {
		var waiting int64
		testutil.Must(t, b.DB.Read(t.Context()).Table("river_job").Where("state <> 'completed'").Count(&waiting).Error)
		return waiting == 0
	})
	for name, row := range want {
		if got := r.eventsOf(row.task); !slices.Equal(got, row.want) {
			t.Errorf("events of the %s task are %v, want %v", name, got, row.want)
		}
	}
}

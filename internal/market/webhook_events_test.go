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

// webhookReceiver is what a receiver was told: of each task, who was told of which events.
type webhookReceiver struct {
	mu     sync.Mutex
	byTask map[string][]string // path and event, by the task's id
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

// eventsOf returns what was told of a task, sorted.
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

// TestWebhookEvents: what becomes of a task is told to its poster and its worker as far as
// they asked for it, and to nobody who did not.
func TestWebhookEvents(t *testing.T) {
	t.Parallel()
	r := &webhookReceiver{byTask: map[string][]string{}}
	receiver := httptest.NewTLSServer(r)
	t.Cleanup(receiver.Close)
	roots := x509.NewCertPool()
	roots.AddCert(receiver.Certificate())
	b, hooks := newWithWebhooks(t, outbound.New(outbound.Options{RootCAs: roots, AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}))
	poster, worker, silent, gone := b.NewAgent(), b.NewAgent(), b.NewAgent(), b.NewAgent()
	listen := func(agent auth.Actor, path string, events []models.WebhookEvent) {
		t.Helper()
		_, err := b.SetWebhook(t.Context(), agent, receiver.URL+path, events)
		testutil.Must(t, err)
	}
	every := models.WebhookEvents()
	listen(poster, "/nowhere", every)
	listen(poster, "/poster", nil) // what it asked for stays
	listen(worker, "/worker", []models.WebhookEvent{models.HookCompleted, models.HookCompleted, models.HookCancelled, models.HookExpired})
	listen(silent, "/silent", nil)
	listen(gone, "/gone", every)
	listen(gone, "/gone", []models.WebhookEvent{})
	_, err := b.SetWebhook(t.Context(), gone, receiver.URL, []models.WebhookEvent{"task.rated"})
	if models.CodeOf(err) != models.InvalidInput {
		t.Errorf("an event that there is not: %v", err)
	}
	testutil.Must(t, hooks.Start(t.Context()))
	t.Cleanup(func() { testutil.Must(t, hooks.Stop(context.WithoutCancel(t.Context()))) })

	completed, cancelled, expired, unnoticed := b.NewTask(poster, 5), b.NewTask(poster, 5), b.NewTask(poster, 5), b.NewTask(silent, 5)
	mustAccept(t, b, worker, completed)
	_, err = b.Complete(t.Context(), worker, completed.ID, "done")
	testutil.Must(t, err)
	mustAccept(t, b, worker, cancelled)
	mustAccept(t, b, gone, unnoticed)
	_, err = b.Complete(t.Context(), gone, unnoticed.ID, "done")
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
		told []string
	}{
		"completed": {completed, []string{"/poster task.assigned", "/poster task.completed", "/worker task.completed"}},
		"cancelled": {cancelled, []string{"/poster task.assigned", "/poster task.cancelled", "/worker task.cancelled"}},
		"expired":   {expired, []string{"/poster task.expired"}},
		"hired":     {hired.Task, []string{"/poster task.assigned", "/poster task.completed", "/worker task.completed"}},
		"unnoticed": {unnoticed, nil},
	}
	late := time.After(20 * time.Second)
	ticks := time.NewTicker(10 * time.Millisecond)
	defer ticks.Stop()
	for {
		var waiting int64
		testutil.Must(t, b.DB.Read(t.Context()).Table("river_job").Where("state <> 'completed'").Count(&waiting).Error)
		if waiting == 0 {
			break
		}
		select {
		case <-ticks.C:
		case <-late:
			t.Fatalf("%d jobs are left", waiting)
		}
	}
	for name, row := range want {
		if got := r.eventsOf(row.task); !slices.Equal(got, row.told) {
			t.Errorf("of the one %s was told %v, want %v", name, got, row.told)
		}
	}
}

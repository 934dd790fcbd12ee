package webhooks

import (
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestNotifyParties checks that the parties of a task receive exactly the events they
// subscribe to, with retries, and that other agents receive nothing.
func TestNotifyParties(t *testing.T) {
	t.Parallel()
	var n atomic.Int32
	r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) == 1 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	b := open(t, settings{roots: certPool(r), allowNetworks: loopback(), retries: fastRetries(3)})
	poster, _ := b.addSubscriber(t, r.URL, "research")
	worker, _ := b.addSubscriber(t, r.URL, "research")
	other, _ := b.addSubscriber(t, r.URL, "research")
	b.subscribeEvents(t, poster, models.WebhookTaskCompleted)
	b.subscribeEvents(t, other, models.WebhookTaskCompleted, models.WebhookTaskAssigned)
	posted := b.postTask(t, models.Task{ID: uuid.Must(uuid.NewV7()).String(), PosterID: poster, Title: "T", Description: "D", Budget: 5, Capabilities: []string{}, CreatedAt: b.timestamp()})
	testutil.Equal(t, "job for an acceptance", b.notifyEvent(t, models.TaskAccepted, posted, worker), false)
	testutil.Equal(t, "job for a cancellation", b.notifyEvent(t, models.TaskCancelled, posted, worker), false)
	testutil.Equal(t, "job for a completion", b.notifyEvent(t, models.TaskCompleted, posted, worker), true)
	b.run(t)
	d := b.waitDeliveries(t, poster, models.DeliveryDelivered, 1)[0]
	testutil.Eventually(t, "all jobs to complete", func() bool { return b.unfinishedJobs(t) == 0 })

	testutil.Equal(t, "event", d.Event, models.WebhookTaskCompleted)
	testutil.Equal(t, "worker", deref(d.WorkerID), any(worker))
	testutil.Equal(t, "attempts", d.Attempts, 2)
	first, second := r.next(t), r.next(t)
	testutil.Equal(t, "body", string(second.body), string(first.body))
	testutil.Equal(t, "event header", first.header.Get("X-AgentMarket-Event"), "task.completed")
	testutil.Equal(t, "requests", len(r.requests), 0)
	testutil.Equal(t, "deliveries to the worker", len(b.deliveries(t, worker)), 0)
	testutil.Equal(t, "deliveries to another agent", len(b.deliveries(t, other)), 0)
	bodies, err := b.RequestBodies([]*models.Delivery{&d, &d}, []*models.Task{b.readTask(t, d.TaskID), nil})
	testutil.Must(t, err)
	testutil.Equal(t, "body from RequestBodies", deref(bodies[0]), any(string(first.body)))
	testutil.Equal(t, "body without a task", deref(bodies[1]), nil)
}

// TestNotifyParties_isIdempotent checks that a match job that runs twice creates each
// delivery once, and that a redelivery keeps its event.
func TestNotifyParties_isIdempotent(t *testing.T) {
	t.Parallel()
	b := open(t, settings{})
	poster, _ := b.addSubscriber(t, "https://poster.example/", "research")
	worker, _ := b.addSubscriber(t, "https://worker.example/", "research")
	for _, agent := range []string{poster, worker} {
		b.subscribeEvents(t, agent, models.WebhookTaskExpired)
	}
	posted := b.post(t, poster)
	args := MatchArgs{
		EventID: posted.ID, TaskID: *posted.TaskID, Event: models.WebhookTaskExpired, PosterID: poster, WorkerID: &worker, At: b.timestamp(),
	}
	testutil.Must(t, b.matchParties(t.Context(), args))
	testutil.Must(t, b.matchParties(t.Context(), args))
	for _, agent := range []string{poster, worker} {
		testutil.Equal(t, "deliveries", len(b.deliveries(t, agent)), 1)
	}
	testutil.Equal(t, "jobs", b.jobsOfKind(t, "webhook_deliver"), 2)
	b.setStatus(t, b.deliveries(t, poster)[0].ID, models.DeliveryFailed)
	n, err := b.redeliverFailed(t, poster, models.FailedDeliveryQuery{First: 10})
	testutil.Must(t, err)
	testutil.Equal(t, "redelivered", n, 1)
	testutil.Equal(t, "jobs", b.jobsOfKind(t, "webhook_deliver"), 3)
	needed, err := b.OldestNeeded(t.Context())
	testutil.Must(t, err)
	testutil.Equal(t, "oldest needed event", needed, posted.ID)
}

// subscribeEvents subscribes an agent with a webhook to events.
func (b *bundle) subscribeEvents(t *testing.T, agentID string, events ...models.WebhookEvent) {
	t.Helper()
	b.write(t, func(tx *database.Tx) error {
		_, _, err := b.Subscribe(tx, agentID, b.webhook(t, agentID).URL, events)
		return err
	})
}

// notifyEvent appends an event of a posted task and calls Notify, as the market does.
// It reports whether a match job was enqueued.
func (b *bundle) notifyEvent(t *testing.T, kind models.EventKind, posted models.Event, worker string) (enqueued bool) {
	t.Helper()
	event := models.Event{Kind: kind, TaskID: posted.TaskID, PosterID: posted.PosterID, WorkerID: &worker, CreatedAt: b.timestamp()}
	before := b.jobsOfKind(t, "webhook_match")
	b.write(t, func(tx *database.Tx) error {
		err := tx.InsertReturning("INSERT INTO events (kind, task_id, poster_id, worker_id, created_at) VALUES (?, ?, ?, ?, ?) RETURNING id",
			[]any{event.Kind, event.TaskID, event.PosterID, event.WorkerID, event.CreatedAt}, &event.ID)
		if err != nil {
			return err
		}
		return b.Notify(tx, &event)
	})
	return b.jobsOfKind(t, "webhook_match") > before
}

func (b *bundle) readTask(t *testing.T, id string) *models.Task {
	t.Helper()
	var task models.Task
	testutil.Must(t, b.db.Read(t.Context()).Take(&task, "id = ?", id).Error)
	return &task
}

// jobsOfKind counts the jobs of a kind.
func (b *bundle) jobsOfKind(t *testing.T, kind string) int64 {
	t.Helper()
	var n int64
	testutil.Must(t, b.db.Read(t.Context()).Table("river_job").Where("kind = ?", kind).Count(&n).Error)
	return n
}

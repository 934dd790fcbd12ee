package webhooks

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/riverqueue/river"
	"gorm.io/gorm/clause"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// matchPageSize is the number of deliveries that one transaction creates. 200
// deliveries block other writers for about 10 ms.
const matchPageSize = 200

// suspendedReason is the last error of a delivery to a suspended webhook.
const suspendedReason = "webhook suspended: resume it, then redeliver"

// maxMergedEvents limits the events of one job. It is about the number of events
// that one group commit contains under load.
const maxMergedEvents = 64

// MatchArgs is the job that finds the recipients of an event and creates their
// deliveries. Jobs of one commit are merged, because a job costs more than a
// match. A retry splits them again.
type MatchArgs struct {
	EventID int64               `json:"event_id"`
	TaskID  string              `json:"task_id"`
	Event   models.WebhookEvent `json:"event"`
	// The parties of the task and the time of the event; empty for task.posted.
	PosterID string      `json:"poster_id,omitempty"`
	WorkerID *string     `json:"worker_id,omitempty"`
	At       models.Time `json:"at,omitempty"`
	Merged   []MatchArgs `json:"merged,omitempty"` // jobs merged into this one, in the order of their events
	NoMerge  bool        `json:"no_merge,omitempty"`
	Trace    string      `json:"trace,omitempty"` // traceparent of the caller
}

// Merge merges a later job of the same commit into a. It returns false when the
// jobs must stay separate.
func (a MatchArgs) Merge(later river.JobArgs) (river.JobArgs, bool) {
	other, ok := later.(MatchArgs)
	if !ok || a.NoMerge || other.NoMerge || len(a.Merged)+1 == maxMergedEvents {
		return nil, false
	}
	a.Merged = append(a.Merged, other)
	return a, true
}

// Kind returns the name of the job.
func (MatchArgs) Kind() string { return "webhook_match" }

// InsertOpts puts the job into the match queue.
func (MatchArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: matchQueue, MaxAttempts: maxJobAttempts}
}

// Notify enqueues the deliveries of an appended event when tx commits. A posted
// task goes to agents with a matching capability, other task events to the parties
// that subscribe to them. Notify does nothing while no agent has a webhook.
func (w *Webhooks) Notify(tx *database.Tx, event *models.Event) error {
	if event.Kind.WebhookEvent() != "" {
		return w.notifyParties(tx, event)
	}
	if event.Kind != models.TaskPosted {
		return nil
	}
	if !w.hasWebhooks.Load() {
		var exist bool
		if err := tx.QueryRow("SELECT EXISTS (SELECT 1 FROM webhooks)", nil, &exist); err != nil {
			return fmt.Errorf("find webhooks: %w", err)
		}
		if !exist {
			return nil
		}
		tx.OnCommit(func() { w.hasWebhooks.Store(true) }) // the webhook may be part of tx, which may roll back
	}
	tx.Enqueue(MatchArgs{EventID: event.ID, TaskID: *event.TaskID, Event: models.WebhookTaskPosted, Trace: tx.TraceParent()}, nil)
	return nil
}

// matchWorker runs MatchArgs jobs.
type matchWorker struct {
	river.WorkerDefaults[MatchArgs]
	webhooks *Webhooks
}

// Work creates the deliveries of the events of a job. A retry of a merged job is
// split into one job per event, so a failing event neither blocks the others nor
// uses up their time.
func (m *matchWorker) Work(ctx context.Context, job *river.Job[MatchArgs]) error {
	first := job.Args
	first.Merged = nil
	events := append([]MatchArgs{first}, job.Args.Merged...)
	if job.Attempt > 1 && len(events) > 1 {
		return m.webhooks.splitMerged(ctx, events)
	}
	tasks, err := m.webhooks.loadTasks(ctx, events)
	if err != nil {
		return fmt.Errorf("read tasks of events from %d: %w", job.Args.EventID, err)
	}
	subscribed, err := m.webhooks.subscribedCapabilities(ctx, tasks)
	if err != nil {
		return fmt.Errorf("find subscribed capabilities of events from %d: %w", job.Args.EventID, err)
	}
	for _, event := range events {
		if err := m.matchOne(ctx, event, tasks[event.TaskID], subscribed); err != nil {
			return err
		}
	}
	return nil
}

// matchOne creates the deliveries of one event. It uses task and subscribed only
// for posted tasks.
func (m *matchWorker) matchOne(ctx context.Context, event MatchArgs, task *models.Task, subscribed map[string]bool) error {
	posted := event.Event == models.WebhookTaskPosted
	if posted && task == nil {
		return fmt.Errorf("task of event %d not found", event.EventID)
	}
	if posted && !slices.ContainsFunc(task.Capabilities, func(capability string) bool { return subscribed[capability] }) {
		return nil // also for a task that requires no capability: it matches no agent
	}
	ctx, span := m.webhooks.tracer.StartChild(ctx, spanMatch, event.Trace)
	defer span.End()
	if !posted {
		return m.webhooks.matchParties(ctx, event)
	}
	return m.webhooks.match(ctx, event.EventID, task)
}

// splitMerged enqueues one job per event.
func (w *Webhooks) splitMerged(ctx context.Context, events []MatchArgs) error {
	return w.db.Write(ctx, func(tx *database.Tx) error {
		for _, event := range events {
			event.NoMerge = true
			tx.Enqueue(event, nil)
		}
		return nil
	})
}

// loadTasks returns the tasks of the task.posted events by id. It reads only the
// fields that matching needs.
func (w *Webhooks) loadTasks(ctx context.Context, events []MatchArgs) (map[string]*models.Task, error) {
	var ids []string
	for _, event := range events {
		if event.Event == models.WebhookTaskPosted {
			ids = append(ids, event.TaskID)
		}
	}
	if len(ids) == 0 {
		return map[string]*models.Task{}, nil
	}
	rows, err := w.db.Read(ctx).Raw("SELECT id, poster_id, capabilities, created_at FROM tasks WHERE id IN ?", ids).Rows()
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err reports the error
	tasks := make(map[string]*models.Task, len(ids))
	for rows.Next() {
		var task models.Task
		var capabilities []byte
		if err := rows.Scan(&task.ID, &task.PosterID, &capabilities, &task.CreatedAt); err != nil {
			return nil, database.TranslateReadError(ctx, err)
		}
		if err := json.Unmarshal(capabilities, &task.Capabilities); err != nil {
			return nil, fmt.Errorf("read capabilities: %w", err)
		}
		tasks[task.ID] = &task
	}
	return tasks, database.TranslateReadError(ctx, rows.Err())
}

// capabilityPageSize limits the capabilities in one statement. SQLite allows 500
// SELECTs in a UNION.
const capabilityPageSize = 100

// subscribedCapabilities returns the required capabilities of tasks that at least
// one agent with a webhook has.
func (w *Webhooks) subscribedCapabilities(ctx context.Context, tasks map[string]*models.Task) (map[string]bool, error) {
	required := map[string]bool{}
	for _, task := range tasks {
		for _, capability := range task.Capabilities {
			required[capability] = true
		}
	}
	subscribed := make(map[string]bool, len(required))
	for page := range slices.Chunk(slices.Sorted(maps.Keys(required)), capabilityPageSize) {
		selects, args := make([]string, len(page)), make([]any, len(page))
		for i, capability := range page {
			selects[i] = fmt.Sprintf("SELECT capability FROM (SELECT capability FROM agent_capabilities WHERE capability = ? AND has_webhook = 1 LIMIT 1) AS first%d", i)
			args[i] = capability
		}
		var found []string
		if err := w.db.Read(ctx).Raw(strings.Join(selects, " UNION ALL "), args...).Scan(&found).Error; err != nil {
			return nil, err
		}
		for _, capability := range found {
			subscribed[capability] = true
		}
	}
	return subscribed, nil
}

// recipient is an agent that receives an event. GORM scans into its fields.
type recipient struct {
	AgentID      string
	Status       models.WebhookStatus
	FailingSince *models.Time
}

// match creates a delivery and its job for each matching agent, page by page in
// the order of agent ids. It is idempotent.
func (w *Webhooks) match(ctx context.Context, eventID int64, task *models.Task) error {
	delivery := models.Delivery{EventID: eventID, TaskID: task.ID, Event: models.WebhookTaskPosted, CreatedAt: task.CreatedAt}
	after := ""
	for {
		page, err := w.recipients(ctx, task, after)
		if err != nil || len(page) == 0 {
			return err
		}
		if err = w.db.Write(ctx, func(tx *database.Tx) error { return w.createDeliveries(tx, delivery, page) }); err != nil {
			return fmt.Errorf("create deliveries of event %d: %w", eventID, err)
		}
		after = page[len(page)-1].AgentID
	}
}

// recipients returns a page of agents that have a webhook and at least one of the
// required capabilities of the task.
func (w *Webhooks) recipients(ctx context.Context, task *models.Task, after string) ([]recipient, error) {
	// The first agents of all capabilities together are among the first of each.
	var selects []string
	var args []any
	for i, capability := range task.Capabilities {
		selects = append(selects, fmt.Sprintf(`SELECT agent_id FROM (SELECT agent_id FROM agent_capabilities
			WHERE capability = ? AND has_webhook = 1 AND agent_id > ? AND agent_id <> ? ORDER BY agent_id LIMIT ?) AS first%d`, i))
		args = append(args, capability, after, task.PosterID, matchPageSize)
	}
	var page []recipient
	err := w.db.Read(ctx).Model(&models.Webhook{}).Select("agent_id", "status", "failing_since").
		Where("agent_id IN ("+strings.Join(selects, " UNION ")+")", args...).
		Order("agent_id").Limit(matchPageSize).Find(&page).Error
	if err != nil {
		return nil, fmt.Errorf("find agents for task %s: %w", task.ID, err)
	}
	return page, nil
}

// createDeliveries creates the missing deliveries to a page of recipients, as
// copies of template, and a job for each delivery to an active webhook. A delivery
// to a suspended webhook is stored as failed and can be redelivered.
func (w *Webhooks) createDeliveries(tx *database.Tx, template models.Delivery, page []recipient) error {
	page, err := reloadSuspended(tx, page)
	if err != nil || len(page) == 0 {
		return err
	}
	rows := make([]models.Delivery, len(page))
	ids := make([]string, len(page))
	queues := make(map[string]string, len(page))
	for i, r := range page {
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		d := template
		d.ID, d.AgentID, d.AttemptsLeft = id.String(), r.AgentID, w.attemptLimit()
		d.Status, d.NextAttemptAt = models.DeliveryPending, new(w.timestamp())
		if r.Status == models.WebhookSuspended {
			d.Status, d.LastError, d.NextAttemptAt = models.DeliveryFailed, new(suspendedReason), nil
		}
		rows[i], ids[i], queues[d.ID] = d, d.ID, w.queueFor(&r)
	}
	if err := tx.Clauses(clause.OnConflict{DoNothing: true}).Create(&rows).Error; err != nil {
		return err
	}
	var created []string
	err = tx.Model(&models.Delivery{}).Where("id IN ? AND status = ?", ids, models.DeliveryPending).Pluck("id", &created).Error
	if err != nil {
		return err
	}
	for _, id := range created {
		enqueueNextAttempt(tx, &models.Delivery{ID: id, Event: template.Event}, river.InsertOpts{Queue: queues[id]})
	}
	return nil
}

// reloadSuspended returns page, read again in tx if it contains a suspended
// webhook: the owner may have resumed the webhook since the page was read, and
// redelivered its failed deliveries.
func reloadSuspended(tx *database.Tx, page []recipient) ([]recipient, error) {
	var ids []string
	suspended := false
	for _, r := range page {
		ids = append(ids, r.AgentID)
		suspended = suspended || r.Status == models.WebhookSuspended
	}
	if !suspended {
		return page, nil
	}
	var current []recipient
	err := tx.Model(&models.Webhook{}).Select("agent_id", "status", "failing_since").Where("agent_id IN ?", ids).Order("agent_id").Find(&current).Error
	return current, err
}

// queueFor returns the queue of the first attempt of a delivery. It is the retry
// queue when the endpoint is failing, crowded or slow, so the attempt does not
// delay first attempts to other endpoints.
func (w *Webhooks) queueFor(r *recipient) string {
	if r.FailingSince != nil || w.limiter.isCrowded(r.AgentID) || w.limiter.isSlow(r.AgentID) {
		return retryQueue
	}
	return firstAttemptQueue
}

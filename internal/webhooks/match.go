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

// matchPageSize is how many deliveries one transaction makes; it holds up the writer
// for about as many milliseconds as a twentieth of it.
const matchPageSize = 200

// suspendedReason is the last error of what is due to a suspended webhook.
const suspendedReason = "webhook suspended: resume it, then redeliver"

// maxMergedEvents is how many events one job matches at most, about as many as share a
// commit when many post at once.
const maxMergedEvents = 64

// MatchArgs is the job that finds whom an event concerns. Those of one commit are
// joined, since a job costs more than a match; tried again, each goes its own way.
type MatchArgs struct {
	EventID int64               `json:"event_id"`
	TaskID  string              `json:"task_id"`
	Event   models.WebhookEvent `json:"event"`
	// The parties and the time of the event. They are empty for a posted task.
	PosterID string      `json:"poster_id,omitempty"`
	WorkerID *string     `json:"worker_id,omitempty"`
	At       models.Time `json:"at,omitempty"`
	Merged   []MatchArgs `json:"more,omitempty"` // joined ones, in the order of their events
	NoMerge  bool        `json:"alone,omitempty"`
	Trace    string      `json:"trace,omitempty"` // of who asked for it
}

// Merge takes in a later job of the same commit.
func (a MatchArgs) Merge(later river.JobArgs) (river.JobArgs, bool) {
	other, ok := later.(MatchArgs)
	if !ok || a.NoMerge || other.NoMerge || len(a.Merged)+1 == maxMergedEvents {
		return nil, false
	}
	a.Merged = append(a.Merged, other)
	return a, true
}

// Kind names the job.
func (MatchArgs) Kind() string { return "webhook_match" }

// InsertOpts says where the job is queued.
func (MatchArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: matchQueue, MaxAttempts: maxJobAttempts}
}

// Notify has an event that was appended to the log told with the commit: a posted
// task to the agents that it suits, what became of one to its parties as far as they
// ask for it. While no agent has a webhook there is nothing to do.
func (w *Webhooks) Notify(tx *database.Tx, event *models.Event) error {
	if event.Kind.WebhookEvent() != "" {
		return w.notifyParties(tx, event)
	}
	if event.Kind != models.TaskPosted {
		return nil
	}
	if !w.hasWebhooks.Load() {
		var anyone bool
		if err := tx.QueryRow("SELECT EXISTS (SELECT 1 FROM webhooks)", nil, &anyone); err != nil {
			return fmt.Errorf("look for webhooks: %w", err)
		}
		if !anyone {
			return nil
		}
		tx.OnCommit(func() { w.hasWebhooks.Store(true) }) // a transaction sees its own webhook, which may not last
	}
	tx.Enqueue(MatchArgs{EventID: event.ID, TaskID: *event.TaskID, Event: models.HookPosted, Trace: tx.TraceParent()}, nil)
	return nil
}

// matchWorker works MatchArgs.
type matchWorker struct {
	river.WorkerDefaults[MatchArgs]
	webhooks *Webhooks
}

// Work makes the deliveries of its events. What failed with others is begun again
// by itself: it neither holds them up nor runs out of time with them.
func (m *matchWorker) Work(ctx context.Context, job *river.Job[MatchArgs]) error {
	first := job.Args
	first.Merged = nil
	events := append([]MatchArgs{first}, job.Args.Merged...)
	if job.Attempt > 1 && len(events) > 1 {
		return m.webhooks.splitMerged(ctx, events)
	}
	tasks, err := m.webhooks.loadTasks(ctx, events)
	if err != nil {
		return fmt.Errorf("read tasks from event %d on: %w", job.Args.EventID, err)
	}
	heard, err := m.webhooks.subscribedCapabilities(ctx, tasks)
	if err != nil {
		return fmt.Errorf("look for who hears of events from %d on: %w", job.Args.EventID, err)
	}
	for _, event := range events {
		if err := m.matchOne(ctx, event, tasks[event.TaskID], heard); err != nil {
			return err
		}
	}
	return nil
}

// matchOne makes the deliveries of one event. The task and heard are those of posted
// tasks only.
func (m *matchWorker) matchOne(ctx context.Context, event MatchArgs, task *models.Task, heard map[string]bool) error {
	posted := event.Event == models.HookPosted
	if posted && task == nil {
		return fmt.Errorf("the task of event %d is not there", event.EventID)
	}
	if posted && !slices.ContainsFunc(task.Capabilities, func(word string) bool { return heard[word] }) {
		return nil // a task that asks for nothing suits nobody
	}
	ctx, span := m.webhooks.tracer.StartChild(ctx, spanMatch, event.Trace)
	defer span.End()
	if !posted {
		return m.webhooks.matchParties(ctx, event)
	}
	return m.webhooks.match(ctx, event.EventID, task)
}

// splitMerged gives each event a job of its own.
func (w *Webhooks) splitMerged(ctx context.Context, events []MatchArgs) error {
	return w.db.Write(ctx, func(tx *database.Tx) error {
		for _, event := range events {
			event.NoMerge = true
			tx.Enqueue(event, nil)
		}
		return nil
	})
}

// loadTasks returns what the posted tasks among events ask for, by their ids.
func (w *Webhooks) loadTasks(ctx context.Context, events []MatchArgs) (map[string]*models.Task, error) {
	var ids []string
	for _, event := range events {
		if event.Event == models.HookPosted {
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
	defer rows.Close() //nolint:errcheck // what it could say, Err has said
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

// capabilityPageSize is how many capabilities one statement looks for: SQLite joins 500
// queries at most.
const capabilityPageSize = 100

// subscribedCapabilities returns those of the capabilities that tasks ask for which some agent with
// a webhook has.
func (w *Webhooks) subscribedCapabilities(ctx context.Context, tasks map[string]*models.Task) (map[string]bool, error) {
	words := map[string]bool{}
	for _, task := range tasks {
		for _, word := range task.Capabilities {
			words[word] = true
		}
	}
	heard := make(map[string]bool, len(words))
	for page := range slices.Chunk(slices.Sorted(maps.Keys(words)), capabilityPageSize) {
		firsts, args := make([]string, len(page)), make([]any, len(page))
		for i, word := range page {
			firsts[i] = fmt.Sprintf("SELECT capability FROM (SELECT capability FROM agent_capabilities WHERE capability = ? AND notified = 1 LIMIT 1) AS first%d", i)
			args[i] = word
		}
		var found []string
		if err := w.db.Read(ctx).Raw(strings.Join(firsts, " UNION ALL "), args...).Scan(&found).Error; err != nil {
			return nil, err
		}
		for _, word := range found {
			heard[word] = true
		}
	}
	return heard, nil
}

// recipient is an agent that an event concerns.
type recipient struct {
	AgentID      string
	Status       models.WebhookStatus
	FailingSince *models.Time
}

// match makes a delivery and its job for each agent that an event suits, page by
// page in the order of their ids. Deliveries that exist are left alone, so it may
// be run again at any point.
func (w *Webhooks) match(ctx context.Context, eventID int64, task *models.Task) error {
	told := models.Delivery{EventID: eventID, TaskID: task.ID, Event: models.HookPosted, CreatedAt: task.CreatedAt}
	after := ""
	for {
		page, err := w.recipients(ctx, task, after)
		if err != nil || len(page) == 0 {
			return err
		}
		if err = w.db.Write(ctx, func(tx *database.Tx) error { return w.createDeliveries(tx, told, page) }); err != nil {
			return fmt.Errorf("make deliveries of event %d: %w", eventID, err)
		}
		after = page[len(page)-1].AgentID
	}
}

// recipients returns a page of the agents with a webhook that can do some of
// what the task asks for.
func (w *Webhooks) recipients(ctx context.Context, task *models.Task, after string) ([]recipient, error) {
	// The first of each capability: among them are the first of all.
	var firsts []string
	var args []any
	for i, capability := range task.Capabilities {
		firsts = append(firsts, fmt.Sprintf(`SELECT agent_id FROM (SELECT agent_id FROM agent_capabilities
			WHERE capability = ? AND notified = 1 AND agent_id > ? AND agent_id <> ? ORDER BY agent_id LIMIT ?) AS first%d`, i))
		args = append(args, capability, after, task.PosterID, matchPageSize)
	}
	var page []recipient
	err := w.db.Read(ctx).Model(&models.Webhook{}).Select("agent_id", "status", "failing_since").
		Where("agent_id IN ("+strings.Join(firsts, " UNION ")+")", args...).
		Order("agent_id").Limit(matchPageSize).Find(&page).Error
	if err != nil {
		return nil, fmt.Errorf("find agents for task %s: %w", task.ID, err)
	}
	return page, nil
}

// createDeliveries makes the deliveries that are missing of a page, alike but for whom they
// are to, and a job for each one to an active webhook. One to a suspended webhook
// fails at once and is kept to be sent later.
func (w *Webhooks) createDeliveries(tx *database.Tx, told models.Delivery, page []recipient) error {
	page, err := reloadSuspended(tx, page)
	if err != nil || len(page) == 0 {
		return err
	}
	rows := make([]models.Delivery, len(page))
	ids := make([]string, len(page))
	queues := make(map[string]string, len(page))
	for i, to := range page {
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		d := told
		d.ID, d.AgentID, d.AttemptsLeft = id.String(), to.AgentID, w.attemptLimit()
		d.Status, d.NextAttemptAt = models.DeliveryPending, new(w.timestamp())
		if to.Status == models.WebhookSuspended {
			d.Status, d.LastError, d.NextAttemptAt = models.DeliveryFailed, new(suspendedReason), nil
		}
		rows[i], ids[i], queues[d.ID] = d, d.ID, w.queueFor(&to)
	}
	if err := tx.Clauses(clause.OnConflict{DoNothing: true}).Create(&rows).Error; err != nil {
		return err
	}
	var made []string
	err = tx.Model(&models.Delivery{}).Where("id IN ? AND status = ?", ids, models.DeliveryPending).Pluck("id", &made).Error
	if err != nil {
		return err
	}
	for _, id := range made {
		enqueueNextAttempt(tx, &models.Delivery{ID: id, Event: told.Event}, river.InsertOpts{Queue: queues[id]})
	}
	return nil
}

// reloadSuspended is a page as the transaction has it when some of it seemed suspended: its
// owner may have resumed it meanwhile, and asked for what had failed.
func reloadSuspended(tx *database.Tx, page []recipient) ([]recipient, error) {
	var ids []string
	suspended := false
	for _, to := range page {
		ids = append(ids, to.AgentID)
		suspended = suspended || to.Status == models.WebhookSuspended
	}
	if !suspended {
		return page, nil
	}
	var now []recipient
	err := tx.Model(&models.Webhook{}).Select("agent_id", "status", "failing_since").Where("agent_id IN ?", ids).Order("agent_id").Find(&now).Error
	return now, err
}

// queueFor is where the first try of a delivery waits: with those to endpoints that
// answer, or where it holds up no other.
func (w *Webhooks) queueFor(to *recipient) string {
	if to.FailingSince != nil || w.limiter.isCrowded(to.AgentID) || w.limiter.isSlow(to.AgentID) {
		return retryQueue
	}
	return firstAttemptQueue
}

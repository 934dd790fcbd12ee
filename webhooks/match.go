package webhooks

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/riverqueue/river"
	"gorm.io/gorm/clause"

	"agentmarket.space/server/database"
	"agentmarket.space/server/models"
)

// matchPage is how many deliveries one transaction makes; it holds up the writer
// for about as many milliseconds as a twentieth of it.
const matchPage = 200

// suspendedReason is the last error of what is due to a suspended webhook.
const suspendedReason = "webhook suspended: set it again to resume, then redeliver"

// MatchArgs is the job that finds whom an event concerns. There is one for each
// event.
type MatchArgs struct {
	EventID int64  `json:"event_id"`
	TaskID  string `json:"task_id"`
}

// Kind names the job.
func (MatchArgs) Kind() string { return "webhook_match" }

// InsertOpts says where the job is queued.
func (MatchArgs) InsertOpts() river.InsertOpts {
	return river.InsertOpts{Queue: matchQueue, MaxAttempts: maxInternalTries}
}

// Announce has a posted task told to the agents that it suits, with the commit
// of the transaction that posts it. The event must be in the log. Events of
// other kinds are told to nobody, and while no agent has a webhook there is
// nothing to do.
func (w *Webhooks) Announce(tx *database.Tx, event models.Event) error {
	if event.Kind != models.TaskPosted {
		return nil
	}
	if !w.anyone.Load() {
		var anyone bool
		if err := tx.Row("SELECT EXISTS (SELECT 1 FROM webhooks)", nil, &anyone); err != nil {
			return fmt.Errorf("look for webhooks: %w", err)
		}
		if !anyone {
			return nil
		}
		tx.OnCommit(func() { w.anyone.Store(true) }) // a transaction sees its own webhook, which may not last
	}
	tx.Enqueue(MatchArgs{EventID: event.ID, TaskID: *event.TaskID}, nil)
	return nil
}

// matcher works MatchArgs.
type matcher struct {
	river.WorkerDefaults[MatchArgs]
	webhooks *Webhooks
}

// Work makes the deliveries of one event.
func (m *matcher) Work(ctx context.Context, job *river.Job[MatchArgs]) error {
	return m.webhooks.match(ctx, job.Args)
}

// candidate is an agent that an event concerns.
type candidate struct {
	AgentID string
	Status  models.WebhookStatus
}

// match makes a delivery and its job for each agent that the event suits, page
// by page in the order of their ids. Deliveries that exist are left alone, so it
// may be run again at any point.
func (w *Webhooks) match(ctx context.Context, args MatchArgs) error {
	var task models.Task
	if err := w.db.Read(ctx).Take(&task, "id = ?", args.TaskID).Error; err != nil {
		return fmt.Errorf("read task of event %d: %w", args.EventID, err)
	}
	after := ""
	for {
		page, err := w.candidates(ctx, &task, after)
		if err != nil || len(page) == 0 {
			return err
		}
		if err = w.db.Write(ctx, func(tx *database.Tx) error { return w.insert(tx, args.EventID, &task, page) }); err != nil {
			return fmt.Errorf("make deliveries of event %d: %w", args.EventID, err)
		}
		after = page[len(page)-1].AgentID
	}
}

// candidates returns a page of the agents with a webhook that can do some of
// what the task asks for. A task that asks for nothing suits nobody.
func (w *Webhooks) candidates(ctx context.Context, task *models.Task, after string) ([]candidate, error) {
	if len(task.Capabilities) == 0 {
		return nil, nil
	}
	// The first of each capability: among them are the first of all.
	var firsts []string
	var args []any
	for i, capability := range task.Capabilities {
		firsts = append(firsts, fmt.Sprintf(`SELECT agent_id FROM (SELECT agent_id FROM agent_capabilities
			WHERE capability = ? AND notified = 1 AND agent_id > ? AND agent_id <> ? ORDER BY agent_id LIMIT ?) AS first%d`, i))
		args = append(args, capability, after, task.PosterID, matchPage)
	}
	var page []candidate
	err := w.db.Read(ctx).Model(&models.Webhook{}).Select("agent_id", "status").
		Where("agent_id IN ("+strings.Join(firsts, " UNION ")+")", args...).
		Order("agent_id").Limit(matchPage).Find(&page).Error
	if err != nil {
		return nil, fmt.Errorf("find agents for task %s: %w", task.ID, err)
	}
	return page, nil
}

// insert makes the deliveries that are missing of a page, and a job for each
// one to an active webhook. One to a suspended webhook fails at once and is kept
// to be sent later.
func (w *Webhooks) insert(tx *database.Tx, eventID int64, task *models.Task, page []candidate) error {
	rows := make([]models.Delivery, len(page))
	ids := make([]string, len(page))
	for i, to := range page {
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		rows[i] = models.Delivery{
			ID: id.String(), AgentID: to.AgentID, EventID: eventID, TaskID: task.ID,
			Status: models.DeliveryPending, TriesLeft: w.tries(), CreatedAt: task.CreatedAt, NextAttemptAt: new(w.stamp()),
		}
		if to.Status == models.WebhookSuspended {
			rows[i].Status, rows[i].LastError, rows[i].NextAttemptAt = models.DeliveryFailed, new(suspendedReason), nil
		}
		ids[i] = rows[i].ID
	}
	if err := tx.Clauses(clause.OnConflict{DoNothing: true}).Create(&rows).Error; err != nil {
		return err
	}
	var made []string
	err := tx.Model(&models.Delivery{}).Where("id IN ? AND status = ?", ids, models.DeliveryPending).Pluck("id", &made).Error
	if err != nil {
		return err
	}
	for _, id := range made {
		tx.Enqueue(DeliverArgs{DeliveryID: id, Attempt: 1}, nil)
	}
	return nil
}

package webhooks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
	"gorm.io/gorm"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/database/failpoint"
	"agentmarket.space/server/models"
)

const (
	// maxShortSnooze is the longest wait that the job itself sits out in steps. The job
	// queue wakes later ones only every five seconds.
	maxShortSnooze  = 10 * time.Second
	shortSnoozeStep = 4 * time.Second
	// A job that finds its endpoint busy comes back after minBusySnooze, or after as
	// long as the endpoint has made no progress, up to maxBusySnooze.
	minBusySnooze = 250 * time.Millisecond
	maxBusySnooze = 30 * time.Second
)

// removedReason is the last error of what was due to a webhook that is gone.
const removedReason = "the webhook was removed"

// DeliverArgs is the job that makes one try of a delivery. A try that was made
// already is skipped, so the job may be queued twice.
type DeliverArgs struct {
	DeliveryID string `json:"delivery_id"`
	Attempt    int    `json:"attempt"` // from 1
	// BulkRedelivery says that it was asked for with others of its page: it leaves room for
	// first tries as a retry does.
	BulkRedelivery bool   `json:"again,omitempty"`
	Trace          string `json:"trace,omitempty"` // of who asked for it
}

// Kind names the job.
func (DeliverArgs) Kind() string { return "webhook_deliver" }

// InsertOpts says where the job is queued: first tries and later ones apart.
func (a DeliverArgs) InsertOpts() river.InsertOpts {
	opts := river.InsertOpts{Queue: firstAttemptQueue, MaxAttempts: maxJobAttempts}
	if a.Attempt > 1 {
		opts.Queue = retryQueue
	}
	return opts
}

// enqueueNextAttempt has the next try of a delivery made with the commit.
func enqueueNextAttempt(tx *database.Tx, d *models.Delivery, opts river.InsertOpts) {
	enqueueAttempt(tx, DeliverArgs{DeliveryID: d.ID, Attempt: d.Attempts + 1}, opts)
}

// enqueueAttempt is enqueue with arguments that there are. They keep their trace where the
// commit is part of none.
func enqueueAttempt(tx *database.Tx, args DeliverArgs, opts river.InsertOpts) {
	args.Trace = cmp.Or(tx.TraceParent(), args.Trace)
	tx.Enqueue(args, &opts)
}

// deliverWorker works DeliverArgs.
type deliverWorker struct {
	river.WorkerDefaults[DeliverArgs]
	webhooks *Webhooks
}

// Work makes the try when its time has come and its endpoint has room.
func (d *deliverWorker) Work(ctx context.Context, job *river.Job[DeliverArgs]) error {
	return d.webhooks.deliver(ctx, job.Args, job.Queue)
}

// deliver makes one try of a delivery, whose job is of a queue, and writes down what
// came of it. The request is made outside any transaction.
func (w *Webhooks) deliver(ctx context.Context, args DeliverArgs, queue string) error {
	later := args.Attempt > 1 || args.BulkRedelivery
	var delivery models.Delivery
	err := w.db.Read(ctx).Where("id = ?", args.DeliveryID).Take(&delivery).Error
	if errors.Is(err, gorm.ErrRecordNotFound) { // it ended long ago and was taken away
		return nil
	}
	if err != nil {
		return fmt.Errorf("read delivery %s: %w", args.DeliveryID, err)
	}
	if delivery.Status != models.DeliveryPending || delivery.Attempts >= args.Attempt {
		return nil
	}
	if early := w.snoozeUntilDue(&delivery); early > 0 {
		return river.JobSnooze(early)
	}
	hook, err := w.Get(ctx, delivery.AgentID)
	if models.CodeOf(err) == models.NotFound {
		return w.drop(ctx, &delivery, removedReason)
	}
	if err != nil {
		return err
	}
	if hook.Status == models.WebhookSuspended {
		return w.drop(ctx, &delivery, suspendedReason)
	}
	if queue == firstAttemptQueue && w.limiter.isSlow(delivery.AgentID) {
		return w.moveToRetryQueue(ctx, &delivery, args)
	}
	taken, stalled, ok := w.limiter.acquire(ctx, delivery.AgentID, later)
	if !ok {
		return river.JobSnooze(busySnooze(stalled, w.random()))
	}
	defer w.limiter.release(taken)

	ctx, span := w.startAttemptSpan(ctx, &args)
	defer span.End()
	failpoint.Hit("deliver-due")
	answer, err := w.attemptDelivery(ctx, hook, &delivery, args.Attempt)
	if err != nil {
		return err
	}
	failpoint.Hit("deliver-sent")
	return w.recordOutcome(context.WithoutCancel(ctx), hook, &delivery, args.Attempt, answer)
}

// moveToRetryQueue has a first try wait with the retries instead: its endpoint has become slow
// since it was queued, or is known to be so in this process only.
func (w *Webhooks) moveToRetryQueue(ctx context.Context, delivery *models.Delivery, args DeliverArgs) error {
	err := w.db.Write(ctx, func(tx *database.Tx) error {
		enqueueAttempt(tx, args, river.InsertOpts{Queue: retryQueue})
		return nil
	})
	if err != nil {
		return fmt.Errorf("put off delivery %s: %w", delivery.ID, err)
	}
	return nil
}

// snoozeUntilDue returns how long the delivery's job is to sleep before it looks again;
// 0 when the delivery is due.
func (w *Webhooks) snoozeUntilDue(delivery *models.Delivery) time.Duration {
	if delivery.NextAttemptAt == nil {
		return 0
	}
	remaining := delivery.NextAttemptAt.AsTime().Sub(w.now())
	if remaining > maxShortSnooze {
		return remaining
	}
	return min(remaining, shortSnoozeStep)
}

// busySnooze returns how long a job stays away from an endpoint without room. An
// endpoint that works its queue off is asked again soon; one that hangs, less
// and less often, so that a long queue to it costs the others little.
func busySnooze(stalled time.Duration, random float64) time.Duration {
	pause := min(max(stalled, minBusySnooze), maxBusySnooze)
	return time.Duration(float64(pause) * (1 - jitter + 2*jitter*random))
}

// drop gives up a delivery that cannot be tried, unless it can by now. It is kept and
// can be sent again.
func (w *Webhooks) drop(ctx context.Context, delivery *models.Delivery, reason string) error {
	err := w.db.Write(ctx, func(tx *database.Tx) error {
		if _, err := activeWebhook(tx, delivery.AgentID); err == nil { // its owner was faster, and may have asked for it
			return river.JobSnooze(minBusySnooze)
		}
		return tx.Model(&models.Delivery{}).
			Where("id = ? AND status = ? AND attempts = ?", delivery.ID, models.DeliveryPending, delivery.Attempts).
			Updates(map[string]any{"status": models.DeliveryFailed, "last_error": reason, "next_attempt_at": nil}).Error
	})
	if snooze, ok := errors.AsType[*rivertype.JobSnoozeError](err); ok {
		return snooze
	}
	if err != nil {
		return fmt.Errorf("give up delivery %s: %w", delivery.ID, err)
	}
	w.logger.InfoContext(ctx, "webhook delivery dropped", slog.String("delivery_id", delivery.ID),
		slog.String("agent_id", delivery.AgentID), slog.String("reason", reason))
	return nil
}

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
	// maxShortSnooze is the longest delay for which a job snoozes in steps of
	// shortSnoozeStep. River moves jobs scheduled later than that into the queue only
	// every five seconds.
	maxShortSnooze  = 10 * time.Second
	shortSnoozeStep = 4 * time.Second
	// A job whose endpoint has no free slot snoozes for as long as the endpoint has
	// made no progress, within these bounds.
	minBusySnooze = 250 * time.Millisecond
	maxBusySnooze = 30 * time.Second
)

// removedReason is the last error of a pending delivery whose webhook was removed.
const removedReason = "the webhook was removed"

// DeliverArgs is the job that makes one attempt of a delivery. It skips an attempt
// that is already recorded, so duplicate jobs are harmless.
type DeliverArgs struct {
	DeliveryID string `json:"delivery_id"`
	Attempt    int    `json:"attempt"` // from 1
	// BulkRedelivery is true for a redelivery of a whole page. It has low priority,
	// like a retry.
	BulkRedelivery bool   `json:"bulk_redelivery,omitempty"`
	Trace          string `json:"trace,omitempty"` // traceparent of the caller
}

// isLowPriority reports whether the job is a retry or a bulk redelivery.
func (a DeliverArgs) isLowPriority() bool { return a.Attempt > 1 || a.BulkRedelivery }

// Kind returns the name of the job.
func (DeliverArgs) Kind() string { return "webhook_deliver" }

// InsertOpts puts first attempts and retries into separate queues.
func (a DeliverArgs) InsertOpts() river.InsertOpts {
	opts := river.InsertOpts{Queue: firstAttemptQueue, MaxAttempts: maxJobAttempts}
	if a.Attempt > 1 {
		opts.Queue = retryQueue
	}
	return opts
}

// enqueueNextAttempt enqueues the next attempt of a delivery when tx commits.
func enqueueNextAttempt(tx *database.Tx, d *models.Delivery, opts river.InsertOpts) {
	enqueueAttempt(tx, DeliverArgs{DeliveryID: d.ID, Attempt: d.Attempts + 1}, opts)
}

// enqueueAttempt enqueues args when tx commits. If tx has no trace, the job keeps
// the trace in args.
func enqueueAttempt(tx *database.Tx, args DeliverArgs, opts river.InsertOpts) {
	args.Trace = cmp.Or(tx.TraceParent(), args.Trace)
	tx.Enqueue(args, &opts)
}

// deliverWorker runs DeliverArgs jobs.
type deliverWorker struct {
	river.WorkerDefaults[DeliverArgs]
	webhooks *Webhooks
}

// Work makes the attempt if it is due and its endpoint has a free slot. Otherwise
// the job snoozes.
func (d *deliverWorker) Work(ctx context.Context, job *river.Job[DeliverArgs]) error {
	return d.webhooks.deliver(ctx, job.Args, job.Queue)
}

// deliver makes one attempt of a delivery and records its outcome. queue is the
// queue of the job. The request is sent outside any transaction.
func (w *Webhooks) deliver(ctx context.Context, args DeliverArgs, queue string) error {
	var delivery models.Delivery
	err := w.db.Read(ctx).Where("id = ?", args.DeliveryID).Take(&delivery).Error
	if errors.Is(err, gorm.ErrRecordNotFound) { // it is past its retention and was pruned
		return nil
	}
	if err != nil {
		return fmt.Errorf("read delivery %s: %w", args.DeliveryID, err)
	}
	if delivery.Status != models.DeliveryPending || delivery.Attempts >= args.Attempt {
		return nil
	}
	if delay := w.snoozeUntilDue(&delivery); delay > 0 {
		return river.JobSnooze(delay)
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
	s, stalled, ok := w.limiter.acquire(ctx, delivery.AgentID, args.isLowPriority())
	if !ok {
		return river.JobSnooze(busySnooze(stalled, w.random()))
	}
	defer func() { w.limiter.release(s) }() // restart changes s

	leave, err := w.gate.enter(ctx, delivery.AgentID)
	if err != nil {
		return fmt.Errorf("wait to send delivery %s: %w", delivery.ID, err)
	}
	defer leave()
	w.limiter.restart(&s)
	ctx, span := w.startAttemptSpan(ctx, &args)
	defer span.End()
	failpoint.Hit("deliver-due")
	outcome, err := w.attemptDelivery(ctx, hook, &delivery, args.Attempt)
	if err != nil {
		return err
	}
	w.gate.recordLatency(delivery.AgentID, outcome.latency)
	failpoint.Hit("deliver-sent")
	return w.recordOutcome(context.WithoutCancel(ctx), hook, &delivery, args.Attempt, outcome)
}

// moveToRetryQueue moves a first attempt to the retry queue. Its endpoint became
// slow after the job was enqueued, or only this process knows that it is slow.
func (w *Webhooks) moveToRetryQueue(ctx context.Context, delivery *models.Delivery, args DeliverArgs) error {
	err := w.db.Write(ctx, func(tx *database.Tx) error {
		enqueueAttempt(tx, args, river.InsertOpts{Queue: retryQueue})
		return nil
	})
	if err != nil {
		return fmt.Errorf("move delivery %s to the retry queue: %w", delivery.ID, err)
	}
	return nil
}

// snoozeUntilDue returns how long the job of a delivery snoozes, 0 or less when
// the delivery is due.
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

// busySnooze returns how long a job snoozes when its endpoint has no free slot.
// The delay grows while the endpoint makes no progress, so a long backlog for a
// hanging endpoint costs other endpoints little.
func busySnooze(stalled time.Duration, random float64) time.Duration {
	delay := min(max(stalled, minBusySnooze), maxBusySnooze)
	return time.Duration(float64(delay) * (1 - jitter + 2*jitter*random))
}

// drop marks a delivery as failed because its webhook was removed or suspended.
// The delivery can be redelivered. If the webhook is active by now, the job
// snoozes instead.
func (w *Webhooks) drop(ctx context.Context, delivery *models.Delivery, reason string) error {
	err := w.db.Write(ctx, func(tx *database.Tx) error {
		if _, err := activeWebhook(tx, delivery.AgentID); err == nil { // set or resumed after the job read it
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
		return fmt.Errorf("drop delivery %s: %w", delivery.ID, err)
	}
	w.logger.InfoContext(ctx, "webhook delivery dropped", slog.String("delivery_id", delivery.ID),
		slog.String("agent_id", delivery.AgentID), slog.String("reason", reason))
	return nil
}

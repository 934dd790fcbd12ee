package webhooks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/riverqueue/river"
	"gorm.io/gorm"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/database/failpoint"
	"agentmarket.space/server/models"
)

// patience is how long a webhook may do nothing but fail.
const patience = 5 * 24 * time.Hour

// maxAttempts is how many tries of a delivery are kept, the last ones: its owner may
// have it sent again as often as it likes.
const maxAttempts = 20

// answer is what came of one try.
type answer struct {
	startedAt  models.Time
	latency    time.Duration
	status     int // 0 when no answer came
	body       string
	sent       []models.Header
	header     []models.Header // the first of the answer's
	problem    string          // why it does not count, empty for a success
	retryAfter time.Duration   // as the receiver asked
}

func (a *answer) outcome() Outcome {
	switch {
	case a.problem == "":
		return Delivered
	case a.status > 0:
		return Refused
	default:
		return Unanswered
	}
}

// ending is what a try brought to an end.
type ending struct{ gaveUp, suspended bool }

// settle writes one try down and decides what is next. A try that was written
// down already changes nothing.
func (w *Webhooks) settle(ctx context.Context, hook *models.Webhook, delivery *models.Delivery, number int, a answer) error {
	var end ending
	err := w.db.Write(ctx, func(tx *database.Tx) (err error) {
		end, err = w.record(tx, hook, delivery.ID, number, a)
		failpoint.Hit("deliver-noted")
		return err
	})
	if err != nil {
		return fmt.Errorf("record try %d of delivery %s: %w", number, delivery.ID, err)
	}
	if end.gaveUp {
		w.logger.WarnContext(ctx, "webhook delivery given up", slog.String("delivery_id", delivery.ID),
			slog.String("agent_id", delivery.AgentID), slog.Int("attempts", number), slog.Int("response_status", a.status))
	}
	if w.tried != nil {
		w.tried(Try{Outcome: a.outcome(), Took: a.latency, GaveUp: end.gaveUp})
	}
	if end.suspended {
		w.logger.WarnContext(ctx, "webhook suspended", slog.String("agent_id", delivery.AgentID), slog.Int("response_status", a.status))
	}
	return nil
}

// record is settle in its transaction. It goes by the delivery as it is now: the
// owner may have asked for it again meanwhile.
func (w *Webhooks) record(tx *database.Tx, hook *models.Webhook, deliveryID string, number int, a answer) (ending, error) {
	var d models.Delivery
	err := tx.Locked().Where("id = ? AND status = ? AND attempts = ?", deliveryID, models.DeliveryPending, number-1).Take(&d).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return ending{}, nil
	}
	if err != nil {
		return ending{}, err
	}
	if err = tx.Create(a.attempt(d.ID, number)).Error; err != nil {
		return ending{}, err
	}
	if number > maxAttempts {
		if err = tx.Delete(&models.Attempt{}, "delivery_id = ? AND number <= ?", d.ID, number-maxAttempts).Error; err != nil {
			return ending{}, err
		}
	}
	d.Attempts, d.TriesLeft = number, max(d.TriesLeft-1, 0)
	d.LastAttemptAt, d.ResponseStatus, d.LastError, d.NextAttemptAt = &a.startedAt, a.response(), nil, nil
	if a.problem == "" {
		d.Status = models.DeliveryDelivered
		return ending{}, errors.Join(store(tx, &d), healthy(tx, hook))
	}
	d.LastError = &a.problem
	before, after, err := w.failing(tx, hook, a)
	if err != nil {
		return ending{}, err
	}
	left := min(d.TriesLeft, len(w.retries))
	gaveUp, suspended := left == 0 || after == models.WebhookSuspended, after != before
	if suspended {
		if err := w.tell(tx, models.SuspendedWebhook, d.AgentID); err != nil {
			return ending{}, err
		}
	}
	if gaveUp {
		d.Status = models.DeliveryFailed
	} else {
		w.retry(tx, &d, wait(w.retries, w.tries()-left, w.random(), a.retryAfter))
	}
	return ending{gaveUp: gaveUp, suspended: suspended}, store(tx, &d)
}

// retry queues the next try. Short waits are sat out by the job itself.
func (w *Webhooks) retry(tx *database.Tx, d *models.Delivery, after time.Duration) {
	due := w.now().Add(after)
	var opts river.InsertOpts
	if after > near {
		opts.ScheduledAt = due
	}
	d.NextAttemptAt = new(models.At(due))
	enqueue(tx, d, opts)
}

// store writes what a try changed in a delivery, which is locked.
func store(tx *database.Tx, d *models.Delivery) error {
	return tx.Model(&models.Delivery{}).Where("id = ?", d.ID).
		Select("status", "attempts", "tries_left", "response_status", "last_error", "last_attempt_at", "next_attempt_at").
		Updates(d).Error
}

// healthy forgets the failures of a webhook, unless its address has changed
// since the try began.
func healthy(tx *database.Tx, hook *models.Webhook) error {
	return tx.Model(&models.Webhook{}).
		Where("agent_id = ? AND updated_at = ? AND failing_since IS NOT NULL", hook.AgentID, hook.UpdatedAt).
		Update("failing_since", nil).Error
}

// failing notes a failure of a webhook and returns its status before and after.
// What an address did that has been changed or removed since the try began does
// not count: the webhook passes for active.
func (w *Webhooks) failing(tx *database.Tx, tried *models.Webhook, a answer) (before, after models.WebhookStatus, err error) {
	hook, err := hookOf(tx.Locked(), tried.AgentID)
	if models.CodeOf(err) == models.NotFound {
		return models.WebhookActive, models.WebhookActive, nil
	}
	if err != nil {
		return "", "", err
	}
	if hook.UpdatedAt != tried.UpdatedAt || hook.URL != tried.URL {
		return models.WebhookActive, models.WebhookActive, nil
	}
	before = hook.Status
	now := w.stamp()
	if hook.FailingSince == nil {
		hook.FailingSince = &now
	}
	if reason := w.suspends(hook, a.status); reason != "" && before == models.WebhookActive {
		hook.Status, hook.SuspendedAt, hook.SuspendedFor = models.WebhookSuspended, &now, &reason
	}
	return before, hook.Status, tx.Model(hook).Select("status", "failing_since", "suspended_at", "suspended_for").Updates(hook).Error
}

// suspends returns why a webhook that fails with this status is to be suspended,
// empty when it is not.
func (w *Webhooks) suspends(hook *models.Webhook, status int) models.WebhookSuspension {
	switch {
	case status == http.StatusGone:
		return models.SuspendedGone
	case w.stamp() >= hook.FailingSince.Add(patience):
		return models.SuspendedFailing
	default:
		return ""
	}
}

// attempt returns the row of the try.
func (a *answer) attempt(deliveryID string, number int) *models.Attempt {
	row := &models.Attempt{
		DeliveryID: deliveryID, Number: number, StartedAt: a.startedAt, LatencyUS: a.latency.Microseconds(),
		ResponseStatus: a.response(), ResponseBody: a.body, RequestHeaders: a.sent, ResponseHeaders: a.header,
	}
	if row.RequestHeaders == nil {
		row.RequestHeaders = []models.Header{}
	}
	if row.ResponseHeaders == nil {
		row.ResponseHeaders = []models.Header{}
	}
	if a.problem != "" {
		row.Error = &a.problem
	}
	return row
}

// response returns the status of the answer, nil when none came.
func (a *answer) response() *int {
	if a.status == 0 {
		return nil
	}
	return &a.status
}

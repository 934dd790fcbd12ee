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

// suspendAfter is how long a webhook may do nothing but fail.
const suspendAfter = 5 * 24 * time.Hour

// maxStoredAttempts is how many tries of a delivery are kept, the last ones: its owner may
// have it sent again as often as it likes.
const maxStoredAttempts = 20

// attemptOutcome is what came of one try.
type attemptOutcome struct {
	startedAt       models.Time
	latency         time.Duration
	status          int // 0 when no answer came
	body            string
	requestHeaders  []models.Header
	responseHeaders []models.Header // the first of the answer's
	failureReason   string          // why it does not count, empty for a success
	retryAfter      time.Duration   // as the receiver asked
}

func (a *attemptOutcome) outcome() Outcome {
	switch {
	case a.failureReason == "":
		return Delivered
	case a.status > 0:
		return Refused
	default:
		return Unanswered
	}
}

// stateChange is what a try brought to an end.
type stateChange struct{ gaveUp, suspended bool }

// recordOutcome writes one try down and decides what is next. A try that was written
// down already changes nothing.
func (w *Webhooks) recordOutcome(ctx context.Context, hook *models.Webhook, delivery *models.Delivery, number int, a attemptOutcome) error {
	var end stateChange
	err := w.db.Write(ctx, func(tx *database.Tx) (err error) {
		end, err = w.applyOutcome(tx, hook, delivery.ID, number, a)
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
	if w.onAttempt != nil {
		w.onAttempt(AttemptReport{Outcome: a.outcome(), Duration: a.latency, GaveUp: end.gaveUp})
	}
	if end.suspended {
		w.logger.WarnContext(ctx, "webhook suspended", slog.String("agent_id", delivery.AgentID), slog.Int("response_status", a.status))
	}
	return nil
}

// applyOutcome is settle in its transaction. It goes by the delivery as it is now: the
// owner may have asked for it again meanwhile.
func (w *Webhooks) applyOutcome(tx *database.Tx, hook *models.Webhook, deliveryID string, number int, a attemptOutcome) (stateChange, error) {
	var d models.Delivery
	err := tx.ForUpdate().Where("id = ? AND status = ? AND attempts = ?", deliveryID, models.DeliveryPending, number-1).Take(&d).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return stateChange{}, nil
	}
	if err != nil {
		return stateChange{}, err
	}
	if err = tx.Create(a.attemptRow(d.ID, number)).Error; err != nil {
		return stateChange{}, err
	}
	if number > maxStoredAttempts {
		if err = tx.Delete(&models.Attempt{}, "delivery_id = ? AND number <= ?", d.ID, number-maxStoredAttempts).Error; err != nil {
			return stateChange{}, err
		}
	}
	d.Attempts, d.AttemptsLeft = number, max(d.AttemptsLeft-1, 0)
	d.LastAttemptAt, d.ResponseStatus, d.LastError, d.NextAttemptAt = &a.startedAt, a.responseStatus(), nil, nil
	if a.failureReason == "" {
		d.Status = models.DeliveryDelivered
		return stateChange{}, errors.Join(saveDelivery(tx, &d), clearFailing(tx, hook))
	}
	d.LastError = &a.failureReason
	before, after, err := w.recordFailure(tx, hook, a)
	if err != nil {
		return stateChange{}, err
	}
	left := min(d.AttemptsLeft, len(w.retries))
	gaveUp, suspended := left == 0 || after == models.WebhookSuspended, after != before
	if suspended {
		if err := w.appendEvent(tx, models.EventWebhookSuspended, d.AgentID); err != nil {
			return stateChange{}, err
		}
	}
	if gaveUp {
		d.Status = models.DeliveryFailed
	} else {
		w.scheduleRetry(tx, &d, retryDelay(w.retries, w.attemptLimit()-left, w.random(), a.retryAfter))
	}
	return stateChange{gaveUp: gaveUp, suspended: suspended}, saveDelivery(tx, &d)
}

// scheduleRetry queues the next try. Short waits are sat out by the job itself.
func (w *Webhooks) scheduleRetry(tx *database.Tx, d *models.Delivery, after time.Duration) {
	due := w.now().Add(after)
	var opts river.InsertOpts
	if after > maxShortSnooze {
		opts.ScheduledAt = due
	}
	d.NextAttemptAt = new(models.NewTime(due))
	enqueueNextAttempt(tx, d, opts)
}

// saveDelivery writes what a try changed in a delivery, which is locked.
func saveDelivery(tx *database.Tx, d *models.Delivery) error {
	return tx.Model(&models.Delivery{}).Where("id = ?", d.ID).
		Select("status", "attempts", "tries_left", "response_status", "last_error", "last_attempt_at", "next_attempt_at").
		Updates(d).Error
}

// clearFailing forgets the failures of a webhook, unless its address has changed
// since the try began.
func clearFailing(tx *database.Tx, hook *models.Webhook) error {
	return tx.Model(&models.Webhook{}).
		Where("agent_id = ? AND updated_at = ? AND failing_since IS NOT NULL", hook.AgentID, hook.UpdatedAt).
		Update("failing_since", nil).Error
}

// recordFailure notes a failure of a webhook and returns its status before and after.
// What an address did that has been changed or removed since the try began does
// not count: the webhook passes for active.
func (w *Webhooks) recordFailure(tx *database.Tx, tried *models.Webhook, a attemptOutcome) (before, after models.WebhookStatus, err error) {
	hook, err := webhookByAgent(tx.ForUpdate(), tried.AgentID)
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
	now := w.timestamp()
	if hook.FailingSince == nil {
		hook.FailingSince = &now
	}
	if reason := w.suspensionReason(hook, a.status); reason != "" && before == models.WebhookActive {
		hook.Status, hook.SuspendedAt, hook.SuspendedReason = models.WebhookSuspended, &now, &reason
	}
	return before, hook.Status, tx.Model(hook).Select("status", "failing_since", "suspended_at", "suspended_for").Updates(hook).Error
}

// suspensionReason returns why a webhook that fails with this status is to be suspended,
// empty when it is not.
func (w *Webhooks) suspensionReason(hook *models.Webhook, status int) models.WebhookSuspension {
	switch {
	case status == http.StatusGone:
		return models.SuspendedGone
	case w.timestamp() >= hook.FailingSince.Add(suspendAfter):
		return models.SuspendedFailing
	default:
		return ""
	}
}

// attemptRow returns the row of the try.
func (a *attemptOutcome) attemptRow(deliveryID string, number int) *models.Attempt {
	row := &models.Attempt{
		DeliveryID: deliveryID, Number: number, StartedAt: a.startedAt, LatencyUS: a.latency.Microseconds(),
		ResponseStatus: a.responseStatus(), ResponseBody: a.body, RequestHeaders: a.requestHeaders, ResponseHeaders: a.responseHeaders,
	}
	if row.RequestHeaders == nil {
		row.RequestHeaders = []models.Header{}
	}
	if row.ResponseHeaders == nil {
		row.ResponseHeaders = []models.Header{}
	}
	if a.failureReason != "" {
		row.Error = &a.failureReason
	}
	return row
}

// responseStatus returns the status of the answer, nil when none came.
func (a *attemptOutcome) responseStatus() *int {
	if a.status == 0 {
		return nil
	}
	return &a.status
}

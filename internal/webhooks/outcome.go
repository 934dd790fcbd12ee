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

// suspendAfter is how long a webhook may fail without a success before it is
// suspended.
const suspendAfter = 5 * 24 * time.Hour

// maxStoredAttempts limits the stored attempts of a delivery to the latest ones.
// Without it the table would grow with each redelivery.
const maxStoredAttempts = 20

// attemptOutcome is the result of one attempt.
type attemptOutcome struct {
	startedAt       models.Time
	latency         time.Duration
	status          int // 0 without a response
	body            string
	requestHeaders  []models.Header
	responseHeaders []models.Header // the first ones of the response
	failureReason   string          // empty for a success
	retryAfter      time.Duration   // requested by the receiver
}

func (o *attemptOutcome) outcome() Outcome {
	switch {
	case o.failureReason == "":
		return OutcomeDelivered
	case o.status > 0:
		return OutcomeRefused
	default:
		return OutcomeUnanswered
	}
}

// stateChange is the effect of an outcome on the delivery and its webhook.
type stateChange struct{ gaveUp, suspended bool }

// recordOutcome records an attempt and schedules the next one, if any. It is
// idempotent.
func (w *Webhooks) recordOutcome(ctx context.Context, hook *models.Webhook, delivery *models.Delivery, number int, o attemptOutcome) error {
	var change stateChange
	err := w.db.Write(ctx, func(tx *database.Tx) (err error) {
		change, err = w.applyOutcome(tx, hook, delivery.ID, number, o)
		failpoint.Hit("deliver-noted")
		return err
	})
	if err != nil {
		return fmt.Errorf("record attempt %d of delivery %s: %w", number, delivery.ID, err)
	}
	if change.gaveUp {
		w.logger.WarnContext(ctx, "webhook delivery given up", slog.String("delivery_id", delivery.ID),
			slog.String("agent_id", delivery.AgentID), slog.Int("attempts", number), slog.Int("response_status", o.status))
	}
	if w.onAttempt != nil {
		w.onAttempt(AttemptReport{Outcome: o.outcome(), Duration: o.latency, GaveUp: change.gaveUp})
	}
	if change.suspended {
		w.logger.WarnContext(ctx, "webhook suspended", slog.String("agent_id", delivery.AgentID), slog.Int("response_status", o.status))
	}
	return nil
}

// applyOutcome applies an outcome to the locked delivery in tx. It changes nothing
// when the attempt is already recorded. It reads the delivery again because the
// owner may have redelivered it during the request.
func (w *Webhooks) applyOutcome(tx *database.Tx, hook *models.Webhook, deliveryID string, number int, o attemptOutcome) (stateChange, error) {
	var d models.Delivery
	err := tx.ForUpdate().Where("id = ? AND status = ? AND attempts = ?", deliveryID, models.DeliveryPending, number-1).Take(&d).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return stateChange{}, nil
	}
	if err != nil {
		return stateChange{}, err
	}
	if err = tx.Create(o.attemptRow(d.ID, number)).Error; err != nil {
		return stateChange{}, err
	}
	if number > maxStoredAttempts {
		if err = tx.Delete(&models.Attempt{}, "delivery_id = ? AND number <= ?", d.ID, number-maxStoredAttempts).Error; err != nil {
			return stateChange{}, err
		}
	}
	d.Attempts, d.AttemptsLeft = number, max(d.AttemptsLeft-1, 0)
	d.LastAttemptAt, d.ResponseStatus, d.LastError, d.NextAttemptAt = &o.startedAt, o.responseStatus(), nil, nil
	if o.failureReason == "" {
		d.Status = models.DeliveryDelivered
		return stateChange{}, errors.Join(saveDelivery(tx, &d), clearFailing(tx, hook))
	}
	d.LastError = &o.failureReason
	before, after, err := w.recordFailure(tx, hook, o.status)
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
		w.scheduleRetry(tx, &d, retryDelay(w.retries, w.attemptLimit()-left, w.random(), o.retryAfter))
	}
	return stateChange{gaveUp: gaveUp, suspended: suspended}, saveDelivery(tx, &d)
}

// scheduleRetry enqueues the next attempt of a delivery after delay. A job with a
// short delay is available at once and snoozes; see maxShortSnooze.
func (w *Webhooks) scheduleRetry(tx *database.Tx, d *models.Delivery, delay time.Duration) {
	due := w.now().Add(delay)
	var opts river.InsertOpts
	if delay > maxShortSnooze {
		opts.ScheduledAt = due
	}
	d.NextAttemptAt = new(models.NewTime(due))
	enqueueNextAttempt(tx, d, opts)
}

// saveDelivery stores the fields of a locked delivery that an outcome changes.
func saveDelivery(tx *database.Tx, d *models.Delivery) error {
	return tx.Model(&models.Delivery{}).Where("id = ?", d.ID).
		Select("status", "attempts", "attempts_left", "response_status", "last_error", "last_attempt_at", "next_attempt_at").
		Updates(d).Error
}

// clearFailing marks a webhook as no longer failing. It does nothing when the
// webhook has changed since the attempt started.
func clearFailing(tx *database.Tx, hook *models.Webhook) error {
	return tx.Model(&models.Webhook{}).
		Where("agent_id = ? AND updated_at = ? AND failing_since IS NOT NULL", hook.AgentID, hook.UpdatedAt).
		Update("failing_since", nil).Error
}

// recordFailure records a failed attempt with a response status, suspends the
// webhook if necessary, and returns the status of the webhook before and after.
// attempted is the webhook at the start of the attempt. If it has changed or was
// removed since, the failure does not count and both statuses are active.
func (w *Webhooks) recordFailure(tx *database.Tx, attempted *models.Webhook, status int) (before, after models.WebhookStatus, err error) {
	hook, err := webhookByAgent(tx.ForUpdate(), attempted.AgentID)
	if models.CodeOf(err) == models.NotFound {
		return models.WebhookActive, models.WebhookActive, nil
	}
	if err != nil {
		return "", "", err
	}
	if hook.UpdatedAt != attempted.UpdatedAt || hook.URL != attempted.URL {
		return models.WebhookActive, models.WebhookActive, nil
	}
	before = hook.Status
	now := w.timestamp()
	if hook.FailingSince == nil {
		hook.FailingSince = &now
	}
	if reason := w.suspensionReason(hook, status); reason != "" && before == models.WebhookActive {
		hook.Status, hook.SuspendedAt, hook.SuspendedReason = models.WebhookSuspended, &now, &reason
	}
	return before, hook.Status, tx.Model(hook).Select("status", "failing_since", "suspended_at", "suspended_reason").Updates(hook).Error
}

// suspensionReason returns the reason to suspend a webhook that failed with a
// response status, or "" to leave it active.
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

// attemptRow returns the row that stores the attempt.
func (o *attemptOutcome) attemptRow(deliveryID string, number int) *models.Attempt {
	row := &models.Attempt{
		DeliveryID: deliveryID, Number: number, StartedAt: o.startedAt, LatencyUS: o.latency.Microseconds(),
		ResponseStatus: o.responseStatus(), ResponseBody: o.body, RequestHeaders: o.requestHeaders, ResponseHeaders: o.responseHeaders,
	}
	if row.RequestHeaders == nil {
		row.RequestHeaders = []models.Header{}
	}
	if row.ResponseHeaders == nil {
		row.ResponseHeaders = []models.Header{}
	}
	if o.failureReason != "" {
		row.Error = &o.failureReason
	}
	return row
}

// responseStatus returns the HTTP status, nil without a response.
func (o *attemptOutcome) responseStatus() *int {
	if o.status == 0 {
		return nil
	}
	return &o.status
}

package market

import (
	"context"
	"errors"
	"log/slog"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/internal/ledger"
	"agentmarket.space/server/models"
)

// pruneBatch is how many rows one transaction forgets.
const pruneBatch = 500

// DeliveryStore are the deliveries of events.
type DeliveryStore interface {
	// Prune takes those away that are older than they are kept.
	Prune(ctx context.Context) error
	// OldestNeeded returns the id of the first event that is still to be kept for them.
	OldestNeeded(ctx context.Context) (eventID int64, err error)
}

// Prune takes away what is older than it is kept: idempotency keys, networks that
// registered agents, entries of the audit log, deliveries, events. It counts the ledger
// first, which goes by the events, and writes the refusals that were counted. Nothing
// depends on when it runs, and several processes may prune at once.
func (m *Market) Prune(ctx context.Context) error {
	counted, err := ledger.UpdateTotals(ctx, m.DB)
	return errors.Join(err, m.FlushRejections(ctx), m.pruneExpired(ctx), m.pruneEvents(ctx, counted))
}

// pruneEvents takes deliveries away and then the events that none of those left
// names, as far as the ledger has counted them.
func (m *Market) pruneEvents(ctx context.Context, counted int64) error {
	if err := m.DeliveryStore.Prune(ctx); err != nil || m.Settings.KeepEvents == 0 {
		return err
	}
	needed, err := m.DeliveryStore.OldestNeeded(ctx)
	if err != nil {
		return err
	}
	pruned, err := m.Events.Prune(ctx, events.PruneBounds{Time: m.now().Add(-m.Settings.KeepEvents), ID: needed, Seq: counted + 1})
	if pruned > 0 {
		m.Logger.InfoContext(ctx, "took old events away", slog.Int("events", pruned))
	}
	return err
}

// pruneExpired drops idempotency keys that are no longer honoured, and networks that
// have all their registrations back.
func (m *Market) pruneExpired(ctx context.Context) error {
	return errors.Join(
		m.deleteExpired(ctx, &models.IdempotencyKey{}, "scope, key", "created_at", m.now().Add(-IdempotencyKeyTTL)),
		m.deleteExpired(ctx, &models.Registrant{}, "network", "full_at", m.now()),
		m.pruneAudit(ctx),
	)
}

// pruneAudit drops the entries of the audit log that are older than they are kept.
func (m *Market) pruneAudit(ctx context.Context) error {
	if m.Settings.KeepAudit == 0 {
		return nil
	}
	return m.deleteExpired(ctx, &models.AuditEntry{}, "seq", "created_at", m.now().Add(-m.Settings.KeepAudit))
}

// deleteExpired drops the rows of a table whose time is not after another.
func (m *Market) deleteExpired(ctx context.Context, row any, key, time string, last models.Time) error {
	return database.RunThrottled(ctx, func() (more bool, err error) {
		var some []models.Time
		err = m.DB.Read(ctx).Model(row).Where(time+" <= ?", last).Limit(1).Pluck(time, &some).Error
		if err != nil || len(some) == 0 {
			return false, err
		}
		err = m.DB.Write(ctx, func(tx *database.Tx) error {
			oldest := tx.ForUpdateSkipLocked().Model(row).Select(key).Where(time+" <= ?", last).Order(time).Limit(pruneBatch)
			gone := tx.Where("("+key+") IN (?)", oldest).Delete(row)
			more = gone.RowsAffected == pruneBatch
			return gone.Error
		})
		return more, err
	})
}

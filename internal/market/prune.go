package market

import (
	"context"
	"errors"
	"log/slog"

	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/internal/ledger"
	"agentmarket.space/server/models"
)

// Prune deletes expired idempotency keys, registration quotas, audit entries, deliveries
// and events. It first updates the ledger totals, which read the events, and flushes the
// audit log. No operation relies on it, and several processes may prune at the same time.
func (m *Market) Prune(ctx context.Context) error {
	countedSeq, err := ledger.UpdateTotals(ctx, m.deps.DB)
	return errors.Join(err, m.deps.Audit.Flush(ctx), m.pruneExpired(ctx), m.pruneEvents(ctx, countedSeq))
}

// pruneEvents deletes expired deliveries, and then the expired events that no delivery
// refers to and that the ledger totals include.
func (m *Market) pruneEvents(ctx context.Context, countedSeq int64) error {
	if err := m.deps.Webhooks.Prune(ctx); err != nil || m.Settings.EventRetention == 0 {
		return err
	}
	needed, err := m.deps.Webhooks.OldestNeeded(ctx)
	if err != nil {
		return err
	}
	pruned, err := m.deps.Events.Prune(ctx, events.PruneBounds{Time: m.timestamp().Add(-m.Settings.EventRetention), ID: needed, Seq: countedSeq + 1})
	if pruned > 0 {
		m.deps.Logger.InfoContext(ctx, "pruned events", slog.Int("count", pruned))
	}
	return err
}

// pruneExpired deletes expired idempotency keys, old entries of the audit log, and
// networks that have all their registrations back.
func (m *Market) pruneExpired(ctx context.Context) error {
	return errors.Join(
		m.idempotency.Prune(ctx),
		m.deps.DB.DeleteExpired(ctx, &models.Registrant{}, "network", "full_at", m.timestamp()),
		m.deps.Audit.Prune(ctx, m.Settings.AuditRetention),
	)
}

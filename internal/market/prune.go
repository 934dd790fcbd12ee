package market

import (
	"context"
	"errors"
	"log/slog"

	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/internal/ledger"
	"agentmarket.space/server/models"
)

// Prune takes away what is older than it is kept: idempotency keys, networks that
// registered agents, entries of the audit log, deliveries, events. It counts the ledger
// first, which goes by the events, and writes the refusals that were counted. Nothing
// depends on when it runs, and several processes may prune at once.
func (m *Market) Prune(ctx context.Context) error {
	counted, err := ledger.UpdateTotals(ctx, m.deps.DB)
	return errors.Join(err, m.deps.Audit.Flush(ctx), m.pruneExpired(ctx), m.pruneEvents(ctx, counted))
}

// pruneEvents takes deliveries away and then the events that none of those left
// names, as far as the ledger has counted them.
func (m *Market) pruneEvents(ctx context.Context, counted int64) error {
	if err := m.deps.Webhooks.Prune(ctx); err != nil || m.Settings.KeepEvents == 0 {
		return err
	}
	needed, err := m.deps.Webhooks.OldestNeeded(ctx)
	if err != nil {
		return err
	}
	pruned, err := m.deps.Events.Prune(ctx, events.PruneBounds{Time: m.now().Add(-m.Settings.KeepEvents), ID: needed, Seq: counted + 1})
	if pruned > 0 {
		m.deps.Logger.InfoContext(ctx, "took old events away", slog.Int("events", pruned))
	}
	return err
}

// pruneExpired deletes expired idempotency keys, old entries of the audit log, and
// networks that have all their registrations back.
func (m *Market) pruneExpired(ctx context.Context) error {
	return errors.Join(
		m.idempotency.Prune(ctx),
		m.deps.DB.DeleteExpired(ctx, &models.Registrant{}, "network", "full_at", m.now()),
		m.deps.Audit.Prune(ctx, m.Settings.KeepAudit),
	)
}

package market

import (
	"context"
	"fmt"
	"sync"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// maxBlockedNetworks is how many refused networks are remembered. When one is forgotten
// its next attempt costs a transaction.
const maxBlockedNetworks = 10_000

// blockedNetworks are the networks that may not register for a while. A refusal is not
// written down, so that its time stands until somebody else of the network
// registers, which makes it later: who is refused here would be by the database.
type blockedNetworks struct {
	mu    sync.Mutex
	until map[string]models.Time
}

// block notes until when a network is refused.
func (r *blockedNetworks) block(network string, until models.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.until == nil || len(r.until) >= maxBlockedNetworks {
		r.until = map[string]models.Time{}
	}
	r.until[network] = until
}

// retryAfter returns for how long a network is refused still.
func (r *blockedNetworks) retryAfter(network string, now models.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	until, noted := r.until[network]
	if noted && until <= now {
		delete(r.until, network)
	}
	return max(0, until.AsTime().Sub(now.AsTime()))
}

func errTooManyRegistrations(wait time.Duration) error {
	return models.RateLimitError(wait, "too many agents were registered from this address")
}

// checkBlocked refuses without a transaction a network that was refused not long
// ago: a limit that costs as much as what it limits is none. A request that was
// answered before is let through to its answer.
func (m *Market) checkBlocked(ctx context.Context, request *auth.Request) error {
	wait := m.blocked.retryAfter(request.Network(), m.now())
	if wait == 0 {
		return nil
	}
	if used, err := m.idempotency.Used(ctx, registrationScope(request)); used || err != nil {
		return err
	}
	return errTooManyRegistrations(wait)
}

// registrationScope is in which an Idempotency-Key of a registration is known: a
// client may come back from another address of its own.
func registrationScope(request *auth.Request) string { return "address:" + request.Network() }

// limitRegistrations takes one registration of a network, and keeps it when the
// transaction is committed only. RATE_LIMITED when there is none left. It comes
// first: who is refused costs one statement.
func (m *Market) limitRegistrations(tx *database.Tx, network string) error {
	every := m.Settings.RegisterEvery
	if every == 0 {
		return nil
	}
	now := m.now()
	var fullAt models.Time
	err := tx.QueryRow(`INSERT INTO registrants (network, full_at) VALUES (?, ?)
		ON CONFLICT (network) DO UPDATE SET full_at = CASE
			WHEN registrants.full_at + ? > excluded.full_at THEN registrants.full_at + ? ELSE excluded.full_at END
		RETURNING full_at`, []any{network, now.Add(every), every.Microseconds(), every.Microseconds()}, &fullAt)
	if err != nil {
		return fmt.Errorf("limit registrations: %w", err)
	}
	most := now.Add(time.Duration(m.Settings.RegisterBurst) * every)
	if fullAt <= most {
		return nil
	}
	wait := fullAt.AsTime().Sub(most.AsTime())
	m.blocked.block(network, now.Add(wait))
	return errTooManyRegistrations(wait)
}

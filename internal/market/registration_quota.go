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

// maxBlockedNetworks bounds how many blocked networks are remembered. A forgotten network
// costs one transaction at its next attempt.
const maxBlockedNetworks = 10_000

// blockedNetworks caches the networks that have used up their registrations, so that
// further attempts need no transaction. The cached time is never too late: a rejected
// attempt writes nothing, and a registration by another process only delays the time in
// the database.
type blockedNetworks struct {
	mu    sync.Mutex
	until map[string]models.Time
}

// block rejects a network until a time.
func (r *blockedNetworks) block(network string, until models.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.until == nil || len(r.until) >= maxBlockedNetworks {
		r.until = map[string]models.Time{}
	}
	r.until[network] = until
}

// retryAfter returns how long a network is still blocked, 0 if it is not.
func (r *blockedNetworks) retryAfter(network string, now models.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	until, ok := r.until[network]
	if ok && until <= now {
		delete(r.until, network)
	}
	return max(0, until.AsTime().Sub(now.AsTime()))
}

func tooManyRegistrationsError(wait time.Duration) error {
	return models.RateLimitError(wait, "too many agents were registered from this address")
}

// checkBlocked returns RATE_LIMITED for a blocked network without a transaction. A replay
// of an earlier request passes.
func (m *Market) checkBlocked(ctx context.Context, request *auth.Request) error {
	wait := m.blocked.retryAfter(request.Network(), m.timestamp())
	if wait == 0 {
		return nil
	}
	if used, err := m.idempotency.Used(ctx, registrationScope(request)); used || err != nil {
		return err
	}
	return tooManyRegistrationsError(wait)
}

// registrationScope returns the scope of the Idempotency-Key of a registration: the
// client's network, because its address may change between requests.
func registrationScope(request *auth.Request) string { return "address:" + request.Network() }

// limitRegistrations uses up one registration of a network, if the transaction commits.
// RATE_LIMITED if there is none left. Call it first, so that a rejected request costs one
// statement.
func (m *Market) limitRegistrations(tx *database.Tx, network string) error {
	every := m.Settings.RegistrationInterval
	if every == 0 {
		return nil
	}
	now := m.timestamp()
	var fullAt models.Time
	err := tx.QueryRow(`INSERT INTO registrants (network, full_at) VALUES (?, ?)
		ON CONFLICT (network) DO UPDATE SET full_at = CASE
			WHEN registrants.full_at + ? > excluded.full_at THEN registrants.full_at + ? ELSE excluded.full_at END
		RETURNING full_at`, []any{network, now.Add(every), every.Microseconds(), every.Microseconds()}, &fullAt)
	if err != nil {
		return fmt.Errorf("limit registrations: %w", err)
	}
	latest := now.Add(time.Duration(m.Settings.RegistrationBurst) * every)
	if fullAt <= latest {
		return nil
	}
	wait := fullAt.AsTime().Sub(latest.AsTime())
	m.blocked.block(network, now.Add(wait))
	return tooManyRegistrationsError(wait)
}

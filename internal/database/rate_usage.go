package database

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// retainedRounds is the number of rounds of a process that stay in the table usage.
// A process that reads once per round misses nothing, even if it is two rounds late.
const retainedRounds = 3

// UsageSync exchanges the rate limit usage of callers with other processes. It is
// not safe for concurrent use.
type UsageSync struct {
	db         *DB
	round      int64
	lastRounds map[string]int64 // last round read, by replica ID; nil before the first Exchange
}

// NewUsageSync returns a UsageSync. A process must have only one.
func (db *DB) NewUsageSync() *UsageSync { return &UsageSync{db: db} }

// Exchange publishes the usage in this process since the last call, and returns the
// usage that other processes have published since then. The first call returns an
// empty map. Exchange runs one statement. If it fails, the usage is not published.
// On SQLite it does nothing and returns an empty map.
func (u *UsageSync) Exchange(ctx context.Context, used map[string]int64) (remote map[string]int64, err error) {
	if u.db.pg == nil {
		return map[string]int64{}, nil
	}
	callers, amounts := make([]string, 0, len(used)), make([]int64, 0, len(used))
	for caller, n := range used {
		callers, amounts = append(callers, caller), append(amounts, n)
	}
	u.round++
	rows, err := u.db.pg.internalPool.Query(ctx, `WITH inserted AS (
			INSERT INTO usage (replica, round, callers, used) SELECT $1::text, $2::bigint, $3::text[], $4::bigint[] WHERE cardinality($3::text[]) > 0
		), deleted AS (
			DELETE FROM usage WHERE replica = $1::text AND round <= $2::bigint - $5::bigint
		)
		SELECT replica, round, callers, used FROM usage WHERE replica <> $1::text`, u.db.replicaID, u.round, callers, amounts, retainedRounds)
	if err != nil {
		return nil, fmt.Errorf("exchange usage: %w", err)
	}
	remote = map[string]int64{}
	lastRounds := map[string]int64{}
	var replica string
	var round int64
	_, err = pgx.ForEachRow(rows, []any{&replica, &round, &callers, &amounts}, func() error {
		lastRounds[replica] = max(lastRounds[replica], round)
		if u.lastRounds == nil || round <= u.lastRounds[replica] {
			return nil
		}
		for i, caller := range callers {
			remote[caller] += amounts[i]
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("exchange usage: %w", err)
	}
	u.lastRounds = lastRounds
	return remote, nil
}

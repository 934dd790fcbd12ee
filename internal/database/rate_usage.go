package database

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// retainedRounds is how many times a process has told the others what is still there:
// who asks as often as the others tell, however much too late, misses nothing.
const retainedRounds = 3

// UsageSync is one process's part in telling the others what callers used in it.
// It is not safe for concurrent use.
type UsageSync struct {
	db         *DB
	round      int64
	lastRounds map[string]int64 // the last round of each of the others; nil before the first Exchange
}

// NewUsageSync begins to exchange. A process has one.
func (db *DB) NewUsageSync() *UsageSync { return &UsageSync{db: db} }

// Exchange tells the other processes what callers used here since the last call, and
// returns what they told since then; the first call returns nothing. It is one
// statement. After an error nothing is told, then or later. On SQLite there is
// no other process.
func (e *UsageSync) Exchange(ctx context.Context, used map[string]int64) (elsewhere map[string]int64, err error) {
	if e.db.pg == nil {
		return map[string]int64{}, nil
	}
	callers, amounts := make([]string, 0, len(used)), make([]int64, 0, len(used))
	for caller, n := range used {
		callers, amounts = append(callers, caller), append(amounts, n)
	}
	e.round++
	rows, err := e.db.pg.internalPool.Query(ctx, `WITH told AS (
			INSERT INTO usage (replica, round, callers, used) SELECT $1::text, $2::bigint, $3::text[], $4::bigint[] WHERE cardinality($3::text[]) > 0
		), old AS (
			DELETE FROM usage WHERE replica = $1::text AND round <= $2::bigint - $5::bigint
		)
		SELECT replica, round, callers, used FROM usage WHERE replica <> $1::text`, e.db.replicaID, e.round, callers, amounts, retainedRounds)
	if err != nil {
		return nil, fmt.Errorf("exchange usage: %w", err)
	}
	elsewhere = map[string]int64{}
	heard := map[string]int64{}
	var replica string
	var round int64
	_, err = pgx.ForEachRow(rows, []any{&replica, &round, &callers, &amounts}, func() error {
		heard[replica] = max(heard[replica], round)
		if e.lastRounds == nil || round <= e.lastRounds[replica] {
			return nil
		}
		for i, caller := range callers {
			elsewhere[caller] += amounts[i]
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("exchange usage: %w", err)
	}
	e.lastRounds = heard
	return elsewhere, nil
}

package database

import (
	"context"
	"runtime"
	"sync"
	"time"

	"agentmarket.space/server/models"
)

// readBudget is how long the lists and counts of one operation may take in the store.
const readBudget = 2 * time.Second

// operationReads is the store time of one operation.
type operationReads struct {
	turn chan struct{} // held by the operation's heavy read

	mu   sync.Mutex
	left time.Duration
}

func newOperationReads() *operationReads {
	return &operationReads{turn: make(chan struct{}, 1), left: readBudget}
}

type operationReadsKey struct{}

// WithReadBudget returns a context for one operation of a client. All its calls of
// [DB.ReadBounded] share the time that an operation may take in the store.
func WithReadBudget(ctx context.Context) context.Context {
	return context.WithValue(ctx, operationReadsKey{}, newOperationReads())
}

// ReadBounded calls read, which reads a list or counts one. It interrupts read and returns
// UNAVAILABLE when the operation of [WithReadBudget] has used up its store time.
//
// A heavy read can take tens of milliseconds. Few of them run at the same time, so that
// they do not hold up other reads and writes, and those of one operation run one by one, so
// that an operation with many of them does not hold up the heavy reads of others. The time
// that a read waits does not count.
func (db *DB) ReadBounded(ctx context.Context, heavy bool, read func(context.Context) error) error {
	reads, limited := ctx.Value(operationReadsKey{}).(*operationReads)
	var turns []chan struct{}
	if heavy && limited {
		turns = append(turns, reads.turn)
	}
	if heavy {
		turns = append(turns, db.heavyReads)
	}
	for _, turn := range turns {
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if !limited {
		return read(ctx)
	}
	left := reads.timeLeft()
	if left <= 0 {
		return budgetError()
	}
	readCtx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	start := time.Now() //nolint:forbidigo // measures the store; the market's clock does not apply
	err := read(readCtx)
	reads.spend(time.Since(start)) //nolint:forbidigo // as above
	if err != nil && readCtx.Err() != nil && ctx.Err() == nil {
		return budgetError()
	}
	return err
}

func (r *operationReads) timeLeft() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.left
}

func (r *operationReads) spend(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left -= d
}

// budgetError returns the error of an operation that has used up its store time.
func budgetError() error {
	err := models.Errorf(models.Unavailable, "the request needs more than %d s of database time; ask for less at once, or try again later", int(readBudget.Seconds()))
	err.RetryAfter = time.Second
	return err
}

// newHeavyReads returns the turns of heavy reads: they may use half of the processors.
func newHeavyReads() chan struct{} {
	return make(chan struct{}, max(1, min(runtime.GOMAXPROCS(0)/2, readConnections-2)))
}

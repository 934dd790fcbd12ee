package database_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// endlessQuery returns a statement that runs for hours.
func endlessQuery() string {
	return services.ForEngine("WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT MAX(i) FROM n", "SELECT pg_sleep(3600)::text")
}

// TestReadBounded: an operation that needs too much store time is interrupted, and so are
// its later reads. Other operations are not affected.
func TestReadBounded(t *testing.T) {
	t.Parallel()
	db := openDB(t, services.NewDatabase(t))
	ctx := database.WithReadBudget(t.Context())
	run := func(ctx context.Context, statement string) error {
		return db.ReadBounded(ctx, true, func(ctx context.Context) error {
			var result string
			return db.Read(ctx).Raw(statement).Scan(&result).Error
		})
	}
	for range 2 { // the second one is refused before it starts
		err := run(ctx, endlessQuery())
		if e := models.AsError(err); e.Code != models.Unavailable || e.RetryAfter == 0 {
			t.Errorf("got %v, want %s with a time to retry after", err, models.Unavailable)
		}
		wantError(t, err, "needs more than 2 s of database time")
	}
	testutil.Must(t, run(database.WithReadBudget(t.Context()), "SELECT 1"))
	testutil.Must(t, run(t.Context(), "SELECT 1"))
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(cancelled, "SELECT 1"); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled operation: got %v", err)
	}
}

// TestReadBounded_heavy: a heavy read waits for others of its operation and of other
// operations, but another read does not.
func TestReadBounded_heavy(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]int{"of the operation": 2, "of all operations": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := openDB(t, services.NewDatabase(t))
			database.LimitHeavyReads(db, limit)
			ctx := t.Context()
			if limit > 1 {
				ctx = database.WithReadBudget(ctx)
			}
			checkHeavyReads(ctx, t, db)
		})
	}
}

// checkHeavyReads checks that a heavy read in ctx waits for another one in ctx.
func checkHeavyReads(ctx context.Context, t *testing.T, db *database.DB) {
	t.Helper()
	running, finish, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- db.ReadBounded(ctx, true, func(context.Context) error {
			close(running)
			<-finish
			return nil
		})
	}()
	<-running
	waiting, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if err := db.ReadBounded(waiting, true, func(context.Context) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a heavy read ran at the same time as another: %v", err)
	}
	testutil.Must(t, db.ReadBounded(ctx, false, func(context.Context) error { return nil }))
	close(finish)
	testutil.Must(t, <-done)
	testutil.Must(t, db.ReadBounded(ctx, true, func(context.Context) error { return nil }))
}

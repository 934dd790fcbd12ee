package app

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// testReplica is the rate limiter of a replica.
type testReplica struct {
	*rateLimiter
	db    *database.DB
	usage *database.UsageSync
}

// openReplicas opens n replicas with one database and a fake clock.
func openReplicas(t *testing.T, address string, clock *markettest.Clock, n int) []testReplica {
	t.Helper()
	all := make([]testReplica, n)
	for i := range all {
		db, err := database.Open(t.Context(), address, slog.New(slog.DiscardHandler))
		testutil.Must(t, err)
		l, err := newRateLimiter(true, true, clock.Now)
		testutil.Must(t, err)
		all[i] = testReplica{rateLimiter: l, db: db, usage: db.NewUsageSync()}
		testutil.Must(t, all[i].syncUsage(t.Context(), all[i].usage)) // starts receiving from the others
	}
	return all
}

// exhaust sends requests until the replica limits them.
func (s testReplica) exhaust(t *testing.T, address string) (admitted int) {
	t.Helper()
	ctx := auth.WithRequest(t.Context(), &auth.Request{Address: address})
	for {
		_, err := s.allowRequest(ctx)
		if err != nil {
			if models.CodeOf(err) != models.RateLimited {
				t.Fatal(err)
			}
			return admitted
		}
		admitted++
	}
}

// TestSyncUsage checks that a caller of three replicas is allowed slightly more than the
// limit at first, and the limit in the long run. Without the database each replica
// applies the limit alone.
func TestSyncUsage(t *testing.T) {
	t.Parallel()
	const replicas, a = 3, "192.0.2.1"
	const perSecond, burst, tenth = 100, 200, 10
	clock := &markettest.Clock{}
	clock.Advance(time.Hour)
	all := openReplicas(t, services.NewPostgresDatabase(t), clock, replicas)
	// run exhausts all replicas every tenth of a second. Each replica syncs every second,
	// at a different time.
	run := func(seconds int, sync func(testReplica)) (admitted int) {
		for tick := range 10 * seconds {
			for i, s := range all {
				admitted += s.exhaust(t, a)
				if tick%10 == 3*i {
					sync(s)
				}
			}
			clock.Advance(time.Second / 10)
		}
		return admitted
	}
	syncOK := func(s testReplica) { testutil.Must(t, s.syncUsage(t.Context(), s.usage)) }

	const first, later = 20, 60
	// Usage is known on all replicas after two seconds.
	limit := perSecond*first + burst + (replicas-1)*(burst+2*perSecond+tenth)
	if got := run(first, syncOK); got > limit {
		t.Errorf("%d requests were admitted in %d s, want at most %d", got, first, limit)
	}
	if got := run(later, syncOK); got > perSecond*(later+2) || got < perSecond*later*9/10 {
		t.Errorf("%d requests were admitted in the next %d s, want about %d a second", got, later, perSecond)
	}

	for _, s := range all {
		testutil.Must(t, s.db.Close())
	}
	syncFails := func(s testReplica) {
		if s.syncUsage(t.Context(), s.usage) == nil {
			t.Error("sync succeeded without the database")
		}
	}
	run(2, syncFails)
	if got := run(later, syncFails); got != replicas*perSecond*later {
		t.Errorf("without sync, %d requests were admitted in %d s, want %d times %d a second", got, later, replicas, perSecond)
	}
}

// TestSyncUsage_threshold checks that a caller is reported once it has used a tenth of
// its calls for a second, with all of its usage.
func TestSyncUsage_threshold(t *testing.T) {
	t.Parallel()
	const tenth = 10
	clock := &markettest.Clock{}
	s := openReplicas(t, services.NewPostgresDatabase(t), clock, 1)[0]
	defer func() { testutil.Must(t, s.db.Close()) }()
	ctx := auth.WithActor(t.Context(), auth.Actor{AgentID: "A"})
	for n := range tenth {
		_, err := s.allowRequest(ctx)
		testutil.Must(t, err)
		testutil.Must(t, s.syncUsage(t.Context(), s.usage))
		var reported []string
		testutil.Must(t, s.db.Read(t.Context()).Raw("SELECT callers::text || used::text FROM usage").Scan(&reported).Error)
		if n < tenth-1 && len(reported) != 0 || n == tenth-1 && !slices.Equal(reported, []string{`{"key A"}{10}`}) {
			t.Errorf("after %d requests: got %q", n+1, reported)
		}
	}
}

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

// testReplica is a replica as far as limits go.
type testReplica struct {
	*rateLimiter
	db    *database.DB
	usage *database.UsageSync
}

// openReplicas opens so many replicas on one store, with a clock that stands still.
func openReplicas(t *testing.T, address string, clock *markettest.Clock, n int) []testReplica {
	t.Helper()
	all := make([]testReplica, n)
	for i := range all {
		db, err := database.Open(t.Context(), address, slog.New(slog.DiscardHandler))
		testutil.Must(t, err)
		l, err := newRateLimiter(true, true, clock.Now)
		testutil.Must(t, err)
		all[i] = testReplica{rateLimiter: l, db: db, usage: db.NewUsageSync()}
		testutil.Must(t, all[i].syncUsage(t.Context(), all[i].usage)) // from here on it hears the others
	}
	return all
}

// exhaust asks for all it can get of a replica.
func (s testReplica) exhaust(t *testing.T, as string) (admitted int) {
	t.Helper()
	ctx := auth.WithRequest(t.Context(), &auth.Request{Address: as})
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

// TestSyncUsage: a caller that takes all it can get of three replicas, which
// exchange in turns, gets a bit more than one would give at first and the same in
// the long run. Once the store is gone each replica limits alone.
func TestSyncUsage(t *testing.T) {
	t.Parallel()
	const replicas, a = 3, "192.0.2.1"
	const perSecond, burst, tenth = 100, 200, 10
	clock := &markettest.Clock{}
	clock.Advance(time.Hour)
	all := openReplicas(t, services.NewPostgresDatabase(t), clock, replicas)
	// run has the caller ask everywhere every tenth of a second, and the replicas
	// exchange every second, each at a time of its own.
	run := func(seconds int, exchange func(testReplica)) (admitted int) {
		for tick := range 10 * seconds {
			for i, s := range all {
				admitted += s.exhaust(t, a)
				if tick%10 == 3*i {
					exchange(s)
				}
			}
			clock.Advance(time.Second / 10)
		}
		return admitted
	}
	works := func(s testReplica) { testutil.Must(t, s.syncUsage(t.Context(), s.usage)) }

	const first, later = 20, 60
	// What a replica has told is known everywhere two seconds after it was used.
	most := perSecond*first + burst + (replicas-1)*(burst+2*perSecond+tenth)
	if got := run(first, works); got > most {
		t.Errorf("%d requests were admitted in %d s, want at most %d", got, first, most)
	}
	if got := run(later, works); got > perSecond*(later+2) || got < perSecond*later*9/10 {
		t.Errorf("%d requests were admitted in the next %d s, want about %d a second", got, later, perSecond)
	}

	for _, s := range all {
		testutil.Must(t, s.db.Close())
	}
	away := func(s testReplica) {
		if s.syncUsage(t.Context(), s.usage) == nil {
			t.Error("exchanged without the store")
		}
	}
	run(2, away)
	if got := run(later, away); got != replicas*perSecond*later {
		t.Errorf("alone, they admitted %d in %d s, want %d times %d a second", got, later, replicas, perSecond)
	}
}

// TestSyncUsage_threshold: a caller is told of when it has used a tenth of what a
// second gives, and then all that it used.
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
		var told []string
		testutil.Must(t, s.db.Read(t.Context()).Raw("SELECT callers::text || used::text FROM usage").Scan(&told).Error)
		if n < tenth-1 && len(told) != 0 || n == tenth-1 && !slices.Equal(told, []string{`{"key A"}{10}`}) {
			t.Errorf("after %d requests the others are told %q", n+1, told)
		}
	}
}

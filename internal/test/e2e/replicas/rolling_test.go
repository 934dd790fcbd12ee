package replicas_test

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"agentmarket.space/server/internal/test/e2e/program"
	"agentmarket.space/server/internal/test/services"
)

// TestRollingRestart: replicas are restarted one after another under load. A
// client is refused by the one that stops, and goes on at another; there is no
// other failure.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	hooks := listenForHooks(t)
	l := prepare(t, market(t, 3, services.Postgres(t), services.NATS(), hooks.env...), hooks)
	l.excused = unreached
	l.start(48)
	l.restartAll()
	l.finish()
}

// TestRollingRestart_drained: with AGENTMARKET_DRAIN, and clients that ask only
// those replicas that say they are ready, nothing fails.
func TestRollingRestart_drained(t *testing.T) {
	t.Parallel()
	hooks := listenForHooks(t)
	servers := market(t, 3, services.Postgres(t), services.NATS(), append(hooks.env, "AGENTMARKET_DRAIN=3s")...)
	l := prepare(t, servers, hooks)
	l.excused = func(error) bool { return false }
	l.pick = balanced(t, servers)
	l.start(48)
	l.restartAll()
	l.finish()
	if len(l.failed) > 0 {
		t.Errorf("requests failed: %v", l.failed)
	}
}

// restartAll stops and starts one replica after another.
func (l *load) restartAll() {
	l.Helper()
	for range rounds(1) {
		for _, server := range l.servers {
			l.progress(20)
			if code := server.Stop(); code != 0 {
				l.Errorf("exit code %d\n%s", code, server.Log())
			}
			l.progress(20)
			server.Restart()
			l.returned("a replica was stopped and started")
		}
	}
}

// balanced picks replicas as a balancer does, that looks at /readyz again and
// again.
func balanced(t *testing.T, servers []*program.Server) (pick func() int) {
	t.Helper()
	ready := make([]atomic.Bool, len(servers))
	var looking sync.WaitGroup
	t.Cleanup(looking.Wait)
	for i, server := range servers {
		ready[i].Store(true)
		looking.Go(func() {
			for ctx := t.Context(); ctx.Err() == nil; rest(ctx) {
				status, _ := server.Do(http.MethodGet, "/readyz", "", "")
				ready[i].Store(status == http.StatusOK)
			}
		})
	}
	return func() int {
		for ctx := context.WithoutCancel(t.Context()); ; rest(ctx) {
			if at := rand.IntN(len(servers)); ready[at].Load() {
				return at
			}
		}
	}
}

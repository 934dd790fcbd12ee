package replicas_test

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/services"
)

// TestRollingRestart: replicas are restarted one after another under load. A client gets
// errors only from the replica that stops, and continues at another.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	hooks := startWebhookReceiver(t)
	l := newWorkload(t, startReplicas(t, 3, services.NewPostgresDatabase(t), services.NATSURL(), hooks.env...), hooks)
	l.isRetryable = isUnreachable
	l.start(48)
	l.restartAll()
	l.finish()
}

// TestRollingRestart_drained: with AGENTMARKET_DRAIN, and clients that use only ready
// replicas, no request fails.
func TestRollingRestart_drained(t *testing.T) {
	t.Parallel()
	hooks := startWebhookReceiver(t)
	servers := startReplicas(t, 3, services.NewPostgresDatabase(t), services.NATSURL(), append(hooks.env, "AGENTMARKET_DRAIN=3s")...)
	l := newWorkload(t, servers, hooks)
	l.isRetryable = func(error) bool { return false }
	l.pickReplica = readyReplicaPicker(t, servers)
	l.start(48)
	l.restartAll()
	l.finish()
	if len(l.errorCounts) > 0 {
		t.Errorf("requests failed: %v", l.errorCounts)
	}
}

// restartAll restarts one replica after another.
func (l *workload) restartAll() {
	l.Helper()
	for range roundCount(1) {
		for _, server := range l.servers {
			l.waitForProgress(20)
			if code := server.Stop(); code != 0 {
				l.Errorf("exit code %d\n%s", code, server.Log())
			}
			l.waitForProgress(20)
			server.Restart()
			l.waitForRecovery("a replica was stopped and started")
		}
	}
}

// readyReplicaPicker picks replicas like a load balancer that polls /readyz.
func readyReplicaPicker(t *testing.T, servers []*testserver.Server) (pick func() int) {
	t.Helper()
	ready := make([]atomic.Bool, len(servers))
	var looking sync.WaitGroup
	t.Cleanup(looking.Wait)
	for i, server := range servers {
		ready[i].Store(true)
		looking.Go(func() {
			for ctx := t.Context(); ctx.Err() == nil; waitRetryDelay(ctx) {
				status, _ := server.Do(http.MethodGet, "/readyz", "", "")
				ready[i].Store(status == http.StatusOK)
			}
		})
	}
	return func() int {
		for ctx := context.WithoutCancel(t.Context()); ; waitRetryDelay(ctx) {
			if at := rand.IntN(len(servers)); ready[at].Load() {
				return at
			}
		}
	}
}

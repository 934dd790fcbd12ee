// Package replicas_test runs several servers on one PostgreSQL as one market, while
// servers, PostgreSQL and NATS fail and recover.
package replicas_test

import (
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/services/localserver"
	"agentmarket.space/server/internal/test/testutil"
)

func TestMain(m *testing.M) { testserver.Main(m) }

// roundCount returns the number of rounds of faults: AGENTMARKET_TEST_ROUNDS, or a default.
func roundCount(defaultCount int) int {
	n, err := strconv.Atoi(os.Getenv("AGENTMARKET_TEST_ROUNDS"))
	if err != nil {
		return defaultCount
	}
	return n
}

// TestReplicas: agents work through three replicas. One after another is killed, loses its
// database connections, and hangs on the database. PostgreSQL crashes and recovers, and
// NATS is killed and restarted.
func TestReplicas(t *testing.T) {
	t.Parallel()
	store, bus := services.NewPostgresCluster(t), services.NewNATSServer(t)
	testutil.Must(t, bus.Start(t.Context()))
	hooks := startWebhookReceiver(t)
	var servers []*testserver.Server
	var proxies []*proxy
	env := slices.Concat(hooks.env, []string{"AGENTMARKET_WEBHOOK_TIMEOUT=2s", "AGENTMARKET_WEBHOOK_RETRIES=" + strings.Repeat("100ms,", 99) + "100ms"})
	for range 3 {
		p, database := startProxy(t, store.Address())
		proxies = append(proxies, p)
		servers = append(servers, testserver.Start(t, replicaSettings(database, bus.Address(), env)...))
	}
	l := startWorkload(t, servers, hooks, 48)
	for round := range roundCount(1) {
		at := round % len(servers)
		for _, fault := range []struct {
			what       string
			fail, mend func()
		}{
			{"a replica was killed and started", servers[at].Kill, func() { servers[at].Restart() }},
			{"PostgreSQL crashed and recovered", func() { testutil.Must(t, store.Stop(localserver.ImmediateShutdown)) }, func() { testutil.Must(t, store.Start(t.Context())) }},
			{"NATS was killed and started", func() { testutil.Must(t, bus.Kill()) }, func() { testutil.Must(t, bus.Start(t.Context())) }},
			{"a replica was cut off from PostgreSQL", func() { proxies[at].setFault(true, false) }, func() { proxies[at].setFault(false, false) }},
			{"a replica hung on PostgreSQL", func() { proxies[at].setFault(false, true) }, func() { proxies[at].setFault(false, false) }},
		} {
			l.waitForProgress(10)
			fault.fail()
			if !strings.HasPrefix(fault.what, "PostgreSQL") {
				l.waitForProgress(10) // other replicas continue
			}
			fault.mend()
			l.waitForRecovery(fault.what)
		}
	}
	l.finish()
}

// TestDeadReplica: another replica refunds the running hires of one that was killed, and a
// key replaced at one replica is rejected at all.
func TestDeadReplica(t *testing.T) {
	t.Parallel()
	called, hold := make(chan struct{}, 1), make(chan struct{})
	url, env := testserver.ServeTLS(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		called <- struct{}{}
		<-hold
	}))
	t.Cleanup(func() { close(hold) })
	servers := startReplicas(t, 2, services.NewPostgresDatabase(t), services.NATSURL(), append(env, "AGENTMARKET_ENDPOINT_TIMEOUT=10m")...)
	poster := servers[0].Register("poster", nil)
	hired := servers[1].Register("hired", map[string]any{"endpointUrl": url})
	balance := func() int { return readBalance(t, servers[1], poster.Key) }
	done := make(chan struct{})
	go func() {
		defer close(done)
		var ignored any
		_ = servers[0].Query(poster.Key, `mutation($id: ID!) { execute(input: {agentId: $id, taskDescription: "Do it", budget: 20}) { task { id } } }`,
			map[string]any{"id": hired.ID}, &ignored) // the server is killed first
	}()
	testutil.Receive(t, "the call of the endpoint", called)
	if got := balance(); got != startCredits-20 {
		t.Errorf("%d credits are left while the agent runs, want %d", got, startCredits-20)
	}
	servers[0].Kill()
	testutil.Receive(t, "the end of the request", done)
	testutil.Eventually(t, "the refund", func() bool { return balance() == startCredits })
	servers[1].Verify()

	servers[0].Restart()
	var rotated struct{ RotateAPIKey struct{ APIKey string } }
	if err := servers[0].Query(poster.Key, `mutation { rotateApiKey { apiKey } }`, nil, &rotated); err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, "all replicas to reject the old key", func() bool {
		status, _ := servers[1].Do(http.MethodGet, "/api/agents/me", poster.Key, "")
		return status == http.StatusUnauthorized
	})
	if status, text := servers[1].Do(http.MethodGet, "/api/agents/me", rotated.RotateAPIKey.APIKey, ""); status != http.StatusOK {
		t.Errorf("the new key: %d %s", status, text)
	}
}

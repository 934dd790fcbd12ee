// Package replicas_test has several servers on one PostgreSQL work as one
// market, while they, PostgreSQL and NATSURL are killed and come back.
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

// roundCount is how often everything fails once: AGENTMARKET_TEST_ROUNDS, or a few
// times.
func roundCount(few int) int {
	n, err := strconv.Atoi(os.Getenv("AGENTMARKET_TEST_ROUNDS"))
	if err != nil {
		return few
	}
	return n
}

// TestReplicas: agents work through three replicas. Meanwhile one after another
// is killed, is cut off from the database, and hangs on it; PostgreSQL crashes
// and recovers, and NATSURL is killed and comes back.
func TestReplicas(t *testing.T) {
	t.Parallel()
	store, bus := services.NewPostgresCluster(t), services.NewNATSServer(t)
	testutil.Must(t, bus.Start(t.Context()))
	hooks := startWebhookReceiver(t)
	var servers []*testserver.Server
	var ways []*proxy
	env := slices.Concat(hooks.env, []string{"AGENTMARKET_WEBHOOK_TIMEOUT=2s", "AGENTMARKET_WEBHOOK_RETRIES=" + strings.Repeat("100ms,", 99) + "100ms"})
	for range 3 {
		way, database := startProxy(t, store.Address())
		ways = append(ways, way)
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
			{"a replica was cut off from PostgreSQL", func() { ways[at].setFault(true, false) }, func() { ways[at].setFault(false, false) }},
			{"a replica hung on PostgreSQL", func() { ways[at].setFault(false, true) }, func() { ways[at].setFault(false, false) }},
		} {
			l.waitForProgress(10)
			fault.fail()
			if !strings.HasPrefix(fault.what, "PostgreSQL") {
				l.waitForProgress(10) // the others go on
			}
			fault.mend()
			l.waitForRecovery(fault.what)
		}
	}
	l.finish()
}

// TestDeadReplica: what a replica had begun when it died is settled by another,
// and a key that one revokes is unknown to all.
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
	left := func() int { return readBalance(t, servers[1], poster.Key) }
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var ignored any
		_ = servers[0].Query(poster.Key, `mutation($id: ID!) { execute(input: {agentId: $id, taskDescription: "Do it", budget: 20}) { task { id } } }`,
			map[string]any{"id": hired.ID}, &ignored) // it is cut off
	}()
	<-called
	if got := left(); got != startCredits-20 {
		t.Errorf("%d credits are left while the agent runs, want %d", got, startCredits-20)
	}
	servers[0].Kill()
	<-ended
	testutil.Eventually(t, "the refund", func() bool { return left() == startCredits })
	servers[1].Verify()

	servers[0].Restart()
	var rotated struct{ RotateAPIKey struct{ APIKey string } }
	if err := servers[0].Query(poster.Key, `mutation { rotateApiKey { apiKey } }`, nil, &rotated); err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, "the old key to be unknown everywhere", func() bool {
		status, _ := servers[1].Do(http.MethodGet, "/api/agents/me", poster.Key, "")
		return status == http.StatusUnauthorized
	})
	if status, text := servers[1].Do(http.MethodGet, "/api/agents/me", rotated.RotateAPIKey.APIKey, ""); status != http.StatusOK {
		t.Errorf("the new key: %d %s", status, text)
	}
}

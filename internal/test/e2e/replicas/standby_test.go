package replicas_test

import (
	"strings"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/services/localserver"
	"agentmarket.space/server/internal/test/testutil"
)

// TestStandby_unavailable: while the synchronous standby is down no change is acknowledged,
// not even a retry that finds the first request's row on the primary, because a failover
// would lose it.
func TestStandby_unavailable(t *testing.T) {
	t.Parallel()
	primary := services.NewPostgresCluster(t)
	standby := services.NewStandby(t, primary)
	server := testserver.Start(t, replicaSettings(primary.Address(), "", nil)...)
	poster := server.Register("poster", nil)
	post := func() error {
		_, err := server.PostTaskInput(poster.Key, map[string]any{"budget": budget}, "Idempotency-Key", "the same")
		return err
	}
	testutil.Must(t, standby.Stop(localserver.FastShutdown))
	for range 2 {
		if err := post(); err == nil || !strings.Contains(err.Error(), `"code":"UNAVAILABLE"`) {
			t.Errorf("without the standby a post returns %v", err)
		}
	}
	testutil.Must(t, standby.Start(t.Context()))
	testutil.Eventually(t, "the post to be acknowledged", func() bool { return post() == nil })
	if got := readBalance(t, server, poster.Key); got != startCredits-budget {
		t.Errorf("%d credits are left, want %d", got, startCredits-budget)
	}
	server.Verify()
}

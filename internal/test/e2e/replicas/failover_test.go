package replicas_test

import (
	"fmt"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
)

// TestFailover: the primary fails with its machine, and its synchronous standby is
// promoted. The replicas reconnect to it, and no acknowledged change is missing.
func TestFailover(t *testing.T) {
	t.Parallel()
	all := recoveryTimes{}
	for range roundCount(1) {
		primary := services.NewPostgresCluster(t)
		standby := services.NewStandby(t, primary)
		testserver.ExpectExit(t, 1, "read only connection", "--addr=127.0.0.1:0", "--secret-key=the same to every replica", "--database="+standby.Address())
		address := fmt.Sprintf("postgres://test@%s,%s/postgres?target_session_attrs=read-write", primary.HostPort(), standby.HostPort())
		hooks := startWebhookReceiver(t)
		l := startWorkload(t, startReplicas(t, 3, address, services.NATSURL(), hooks.env...), hooks, 48)
		l.recoveries = all
		l.waitForProgress(100)
		testutil.Must(t, primary.Kill())
		testutil.Must(t, standby.Promote(t.Context()))
		l.waitForRecovery("the standby was promoted")
		l.waitForProgress(100)
		l.finish()
		for _, server := range l.servers {
			server.Kill()
		}
		testutil.Must(t, standby.Kill())
	}
}

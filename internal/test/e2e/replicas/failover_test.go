package replicas_test

import (
	"fmt"
	"testing"

	"agentmarket.space/server/internal/test/e2e/program"
	"agentmarket.space/server/internal/test/services"
)

// TestFailOver: the primary is lost with its machine, and its synchronous
// standby is promoted. The replicas find it by themselves, and nothing that was
// acknowledged is missing.
func TestFailOver(t *testing.T) {
	t.Parallel()
	all := returns{}
	for range rounds(1) {
		primary := services.PrivatePostgres(t)
		standby := services.Standby(t, primary)
		program.Refused(t, 1, "read only connection", "--addr=127.0.0.1:0", "--secret-key=the same to every replica", "--database="+standby.Address())
		address := fmt.Sprintf("postgres://test@%s,%s/postgres?target_session_attrs=read-write", primary.Host(), standby.Host())
		hooks := listenForHooks(t)
		l := begin(t, market(t, 3, address, services.NATS(), hooks.env...), hooks, 48)
		l.returns = all
		l.progress(100)
		must(t, primary.Kill())
		must(t, standby.Promote(t.Context()))
		l.returned("the standby was promoted")
		l.progress(100)
		l.finish()
		for _, server := range l.servers {
			server.Kill()
		}
		must(t, standby.Kill())
	}
}

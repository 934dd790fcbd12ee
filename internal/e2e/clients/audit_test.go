package clients_test

import (
	"testing"

	"agentmarket.space/server/internal/e2e/program"
)

// audits is how many audits graphql-http 1.23 has.
const audits = 61

// TestAudits runs the GraphQL-over-HTTP audits: every MUST, SHOULD and MAY.
func TestAudits(t *testing.T) {
	t.Parallel()
	server := program.Start(t)
	type audit struct{ ID, Name, Status, Reason string }
	all := lines[audit](t, script(t, "audit.mjs", server.URL+"/graphql"))
	if len(all) != audits {
		t.Errorf("%d audits ran, want %d", len(all), audits)
	}
	for _, a := range all {
		if a.Status != "ok" {
			t.Errorf("%s %s: %s, %s", a.ID, a.Name, a.Status, a.Reason)
		}
	}
}

package clients_test

import (
	"testing"

	"agentmarket.space/server/internal/test/e2e/program"
)

// audits is how many audits graphql-http 1.23 has.
const audits = 61

// TestAudits runs the GraphQL-over-HTTP audits: every MUST, SHOULD and MAY.
func TestAudits(t *testing.T) {
	t.Parallel()
	server := program.Start(t)
	client := script(t, "audit.mjs", server.URL+"/graphql")
	seen := map[string]bool{}
	for range audits {
		audit := next[struct{ ID, Name, Status, Reason string }](t, client)
		t.Run(audit.ID+" "+audit.Name, func(t *testing.T) {
			t.Parallel()
			if audit.Status != "ok" {
				t.Errorf("%s: %s", audit.Status, audit.Reason)
			}
		})
		seen[audit.ID] = true
	}
	if line, more := <-client.lines; more || len(seen) != audits {
		t.Errorf("%d different audits ran, want %d; the next is %s", len(seen), audits, line)
	}
}

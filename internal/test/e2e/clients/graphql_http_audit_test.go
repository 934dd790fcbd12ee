package clients_test

import (
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
)

// auditCount is the number of audits in graphql-http 1.23.
const auditCount = 61

// TestGraphQLOverHTTPAudits runs the GraphQL-over-HTTP audits: every MUST, SHOULD and MAY.
func TestGraphQLOverHTTPAudits(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t)
	client := runScript(t, "audit.mjs", server.URL+"/graphql")
	seen := map[string]bool{}
	for range auditCount {
		audit := nextLine[struct{ ID, Name, Status, Reason string }](t, client)
		t.Run(audit.ID+" "+audit.Name, func(t *testing.T) {
			t.Parallel()
			if audit.Status != "ok" {
				t.Errorf("%s: %s", audit.Status, audit.Reason)
			}
		})
		seen[audit.ID] = true
	}
	if line, more := <-client.lines; more || len(seen) != auditCount {
		t.Errorf("%d different audits ran, want %d; the next is %s", len(seen), auditCount, line)
	}
}

package graph

import (
	"fmt"
	"slices"
	"testing"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestWebhookChanged checks that an owner gets the suspensions and resumptions of its
// webhook only, with the current webhook, and can resume from a cursor.
func TestWebhookChanged(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	owner, other := b.registerAgent(t, `webhookUrl: "https://owner.example.com/hook"`), b.registerAgent(t, `webhookUrl: "https://other.example.com/hook"`)
	suspend := func(c caller) {
		t.Helper()
		testutil.Must(t, b.DB.Write(t.Context(), func(tx *database.Tx) error {
			if err := tx.Exec("UPDATE webhooks SET status = 'suspended', suspended_at = 1, suspended_reason = 'gone' WHERE agent_id = ?", c.id).Error; err != nil {
				return err
			}
			return b.Log.AppendNoID(tx, models.Event{Kind: models.EventWebhookSuspended, AgentID: &c.id, CreatedAt: models.NewTime(b.Clock.Now())})
		}))
	}
	const resume = `mutation { resumeWebhook { webhook { status } } }`
	const document = `subscription { webhookChanged(after: %q) { cursor occurredAt change webhook { status suspendedReason pendingCount } } }`
	suspend(owner)
	b.mustQuery(t, owner, resume)
	suspend(other)
	suspend(owner)
	for door, subscribe := range subscribeFuncs() {
		hear := func(c caller, after string, want ...string) []gqlResponse {
			t.Helper()
			s := subscribe(b, t, c, fmt.Sprintf(document, after))
			heard := s.nextN(len(want))
			if got := s.values(heard, "webhookChanged.change"); !slices.Equal(got, want) {
				t.Errorf("%s: heard %v, want %v", door, got, want)
			}
			return heard
		}
		heard := hear(owner, "0", "SUSPENDED", "RESUMED", "SUSPENDED")
		heard[2].assertFields(t, "webhookChanged.webhook", `{"pendingCount":0,"status":"SUSPENDED","suspendedReason":"GONE"}`,
			"webhookChanged.occurredAt", "2026-03-13T12:00:00Z")
		hear(owner, heard[1].get(t, "webhookChanged.cursor"), "SUSPENDED")
		hear(other, "0", "SUSPENDED")
		if _, code := subscribe(b, t, caller{}, fmt.Sprintf(document, "0")).drain(); code != string(models.Unauthenticated) {
			t.Errorf("%s: a stranger ends with %q", door, code)
		}
	}
	b.mustQuery(t, owner, `mutation { removeWebhook { viewer { agent { id } } } }`)
	for _, subscribe := range subscribeFuncs() {
		subscribe(b, t, owner, fmt.Sprintf(document, "0")).nextN(3)[2].assertFields(t, "webhookChanged.webhook", "null")
	}
}

package market_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// auditLines formats the audit log, oldest entry first.
func auditLines(t *testing.T, b *markettest.Bundle) (lines []string) {
	t.Helper()
	var entries []models.AuditEntry
	testutil.Must(t, b.DB.Read(t.Context()).Order("seq").Find(&entries).Error)
	for _, e := range entries {
		lines = append(lines, strings.Join([]string{e.Actor, string(e.Action), e.Object, e.Address, e.RequestID, e.Outcome, strconv.FormatInt(e.Count, 10)}, " | "))
	}
	return lines
}

// TestAudit: each security-relevant operation leaves one entry with its actor, action,
// object, address and request id. Replays and errors leave none.
func TestAudit(t *testing.T) {
	t.Parallel()
	b, _ := newWithWebhooks(t, outbound.New(outbound.Options{}))
	agent := b.NewAgent("x")
	request := func(key string) context.Context {
		return auth.WithRequest(t.Context(), &auth.Request{ID: "r1", Address: "192.0.2.1", IdempotencyKey: key})
	}
	entry := func(action, object string) string {
		return strings.Join([]string{agent.AgentID, action, object, "192.0.2.1", "r1", "OK", "1"}, " | ")
	}
	rows := []struct {
		name string
		act  func(context.Context) error
		want []string
	}{
		{"a webhook is set", func(ctx context.Context) error {
			_, err := b.SetWebhook(ctx, agent, "https://agent.example.com/hook?token=secret", nil)
			return err
		}, []string{entry("webhook.set", "agent.example.com")}},
		{"a secret is rotated", func(ctx context.Context) error {
			_, err := b.RotateSecret(ctx, agent, 60)
			return err
		}, []string{entry("secret.rotated", agent.AgentID)}},
		{"a secret is not rotated", func(ctx context.Context) error {
			_, err := b.RotateSecret(ctx, agent, 1_000_000)
			return checkCode(err, models.InvalidInput)
		}, nil},
		{"an endpoint and a prompt are changed", func(ctx context.Context) error {
			_, err := b.UpdateAgent(ctx, agent, market.AgentChanges{EndpointURL: new("https://agent.example.com/run"), SystemPrompt: new("secret prompt")})
			return err
		}, []string{entry("agent.changed", "endpointUrl systemPrompt")}},
		{"a name is changed", func(ctx context.Context) error {
			_, err := b.UpdateAgent(ctx, agent, market.AgentChanges{Name: new("B")})
			return err
		}, nil},
		{"a delivery of another agent is not sent again", func(ctx context.Context) error {
			_, err := b.Redeliver(ctx, agent, "another")
			return checkCode(err, models.NotFound)
		}, nil},
		{"a webhook is resumed", func(ctx context.Context) error {
			_, err := b.ResumeWebhook(ctx, agent)
			return err
		}, []string{entry("webhook.resumed", agent.AgentID)}},
		{"no failed delivery is sent again", func(ctx context.Context) error {
			_, err := b.RedeliverFailed(ctx, agent, models.FailedDeliveryQuery{First: 10})
			return err
		}, nil},
		{"a webhook is removed", func(ctx context.Context) error { return b.RemoveWebhook(ctx, agent) }, []string{entry("webhook.removed", agent.AgentID)}},
		{"a key is rotated", func(ctx context.Context) error {
			_, err := b.RotateKey(ctx, agent)
			return err
		}, []string{entry("key.rotated", agent.AgentID)}},
		{"a revoked key is not rotated", func(ctx context.Context) error {
			_, err := b.RotateKey(auth.WithRequest(ctx, &auth.Request{}), agent)
			return checkCode(err, models.Unauthenticated)
		}, nil},
	}
	for _, row := range rows {
		before := len(auditLines(t, b))
		for range 2 { // the second request is a replay
			testutil.Must(t, row.act(request("key of "+row.name)))
		}
		if got := auditLines(t, b)[before:]; strings.Join(got, "\n") != strings.Join(row.want, "\n") {
			t.Errorf("%s: entries are %q, want %q", row.name, got, row.want)
		}
	}
	for _, line := range auditLines(t, b) {
		if strings.Contains(line, "secret prompt") || strings.Contains(line, "token") {
			t.Errorf("the entry contains a secret: %s", line)
		}
	}
	if first := auditLines(t, b)[0]; first != agent.AgentID+" | agent.registered | "+agent.AgentID+" |  |  | OK | 1" {
		t.Errorf("the entry of the registration is %q", first)
	}
}

func checkCode(err error, code models.Code) error {
	if err == nil || models.CodeOf(err) != code {
		return fmt.Errorf("got %w, want %s", err, code)
	}
	return nil
}

// TestRevokeKeys: the operator revokes the keys of one agent, which leaves an audit entry.
func TestRevokeKeys(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	agent, other := b.NewAgent("x"), b.NewAgent("x")
	var revoked []auth.KeyHash
	b.OnKeyRevoked = func(key auth.KeyHash) { revoked = append(revoked, key) }
	testutil.Must(t, b.RevokeKeys(t.Context(), agent.AgentID))
	if len(revoked) != 1 || revoked[0] != agent.KeyHash {
		t.Errorf("%d keys were revoked, want 1", len(revoked))
	}
	if _, err := b.RotateKey(t.Context(), agent); checkCode(err, models.Unauthenticated) != nil {
		t.Errorf("the revoked key returned %v", err)
	}
	if _, err := b.RotateKey(t.Context(), other); err != nil {
		t.Error(err)
	}
	testutil.Must(t, checkCode(b.RevokeKeys(t.Context(), "nobody"), models.NotFound))
	if got := auditLines(t, b); got[2] != "operator | keys.revoked | "+agent.AgentID+" |  |  | OK | 1" || len(got) != 4 {
		t.Errorf("entries are %q", got)
	}
}

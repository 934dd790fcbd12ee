package market_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// auditLines is the audit log of a market, first entry first, without who read it.
func auditLines(t *testing.T, b *markettest.Bundle) (lines []string) {
	t.Helper()
	var entries []models.AuditEntry
	testutil.Must(t, b.DB.Read(t.Context()).Order("seq").Find(&entries).Error)
	for _, e := range entries {
		lines = append(lines, strings.Join([]string{e.Actor, string(e.Action), e.Object, e.Address, e.RequestID, e.Outcome, strconv.FormatInt(e.Count, 10)}, " | "))
	}
	return lines
}

// TestAudit: whatever an agent does about security is one entry with who, what, to
// what, from where and in which request; asked for again with the same key, or
// refused, it is none.
func TestAudit(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	notifying(b, outbound.New(outbound.Options{}))
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
		{"a secret is replaced", func(ctx context.Context) error {
			_, err := b.RotateSecret(ctx, agent, 60)
			return err
		}, []string{entry("secret.rotated", agent.AgentID)}},
		{"a secret is not replaced", func(ctx context.Context) error {
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
		{"another's delivery is asked for", func(ctx context.Context) error {
			_, err := b.Redeliver(ctx, agent, "another")
			return checkCode(err, models.NotFound)
		}, nil},
		{"a webhook is resumed", func(ctx context.Context) error {
			_, err := b.ResumeWebhook(ctx, agent)
			return err
		}, []string{entry("webhook.resumed", agent.AgentID)}},
		{"nothing is there to be made again", func(ctx context.Context) error {
			_, err := b.RedeliverFailed(ctx, agent, models.FailedDeliveryQuery{First: 10})
			return err
		}, nil},
		{"a webhook is removed", func(ctx context.Context) error { return b.RemoveWebhook(ctx, agent) }, []string{entry("webhook.removed", agent.AgentID)}},
		{"a key is replaced", func(ctx context.Context) error {
			_, err := b.RotateKey(ctx, agent)
			return err
		}, []string{entry("key.rotated", agent.AgentID)}},
		{"a key that was replaced replaces nothing", func(ctx context.Context) error {
			_, err := b.RotateKey(auth.WithRequest(ctx, &auth.Request{}), agent)
			return checkCode(err, models.Unauthenticated)
		}, nil},
	}
	for _, row := range rows {
		before := len(auditLines(t, b))
		for range 2 { // the second time it is answered from what was kept
			testutil.Must(t, row.act(request("key of "+row.name)))
		}
		if got := auditLines(t, b)[before:]; strings.Join(got, "\n") != strings.Join(row.want, "\n") {
			t.Errorf("%s: the log says %q, want %q", row.name, got, row.want)
		}
	}
	for _, line := range auditLines(t, b) {
		if strings.Contains(line, "secret prompt") || strings.Contains(line, "token") {
			t.Errorf("the log shows a secret: %s", line)
		}
	}
	if first := auditLines(t, b)[0]; first != agent.AgentID+" | agent.registered | "+agent.AgentID+" |  |  | OK | 1" {
		t.Errorf("the registration is %q", first)
	}
}

func checkCode(err error, code models.Code) error {
	if err == nil || models.CodeOf(err) != code {
		return fmt.Errorf("got %w, want %s", err, code)
	}
	return nil
}

// TestAudit_rollsBackWithTransaction: what is undone leaves no entry, and what is done always does,
// however many do it at once.
func TestAudit_rollsBackWithTransaction(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	undo := errors.New("undone")
	err := b.DB.Write(t.Context(), func(tx *database.Tx) error {
		if err := b.RecordOperatorAction(tx, models.SecretsReencrypted, ""); err != nil {
			return err
		}
		return undo
	})
	if !errors.Is(err, undo) || len(auditLines(t, b)) != 0 {
		t.Errorf("%v, and the log says %q", err, auditLines(t, b))
	}
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() { b.NewAgent("x") })
	}
	group.Wait()
	if got := auditLines(t, b); len(got) != 20 {
		t.Errorf("20 agents were registered, and the log says %q", got)
	}
}

// TestAudit_appendOnly: the database itself refuses to change an entry, or to take away one
// of today. What is older than it is kept goes by itself.
func TestAudit_appendOnly(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	b.NewAgent("x")
	testutil.Must(t, b.DB.Write(t.Context(), func(tx *database.Tx) error {
		return tx.Create(&models.AuditEntry{CreatedAt: models.NewTime(time.Now()), Action: models.AuditRead, Outcome: models.AuditOK, Count: 1}).Error
	}))
	for _, statement := range []string{"UPDATE audit_entries SET actor = 'another'", "DELETE FROM audit_entries", "DELETE FROM audit_entries WHERE seq = 2"} {
		if err := b.DB.Write(t.Context(), func(tx *database.Tx) error { return tx.Exec(statement).Error }); err == nil {
			t.Errorf("%s: done", statement)
		}
	}
	b.Clock.Advance(91 * 24 * time.Hour)
	mustPrune(t, b)
	if n := len(auditLines(t, b)); n != 2 {
		t.Errorf("kept for ever, %d entries are left", n)
	}
	b.Settings.KeepAudit = 90 * 24 * time.Hour
	mustPrune(t, b)
	if got := auditLines(t, b); len(got) != 1 || !strings.Contains(got[0], "audit.read") {
		t.Errorf("after its time the log says %q", got)
	}
}

// TestAudit_countsRejections are counted together, and no more kinds of them than are told
// apart are kept in mind.
func TestAudit_countsRejections(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	from := func(address string) context.Context {
		return auth.WithRequest(t.Context(), &auth.Request{ID: "r", Address: address})
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 100 {
				b.RecordRejection(from("192.0.2.1"), models.KeyRefused, models.Unauthenticated)
			}
		})
	}
	group.Wait()
	if n := len(auditLines(t, b)); n != 0 {
		t.Errorf("%d entries were written by strangers", n)
	}
	for range 2 {
		testutil.Must(t, b.FlushRejections(t.Context()))
	}
	if got := auditLines(t, b); len(got) != 1 || got[0] != " | key.refused |  | 192.0.2.1 |  | UNAUTHENTICATED | 800" {
		t.Errorf("the log says %q", got)
	}
	for i := range 3000 {
		b.RecordRejection(from(fmt.Sprintf("198.51.%d.%d", i/250, i%250)), models.KeyRefused, models.Unauthenticated)
	}
	testutil.Must(t, b.FlushRejections(t.Context()))
	got := auditLines(t, b)[1:]
	if len(got) != 1001 || got[1000] != " | key.refused |  | elsewhere |  | UNAUTHENTICATED | 2000" {
		t.Errorf("%d entries, the last %q", len(got), got[len(got)-1])
	}
	closed, cancel := context.WithCancel(t.Context())
	cancel()
	b.RecordRejection(from("192.0.2.1"), models.OperatorRefused, models.Unauthenticated)
	if err := b.FlushRejections(closed); err == nil {
		t.Error("written without a store")
	}
	testutil.Must(t, b.FlushRejections(t.Context()))
	if last := auditLines(t, b); !strings.Contains(last[len(last)-1], "operator.refused |  | 192.0.2.1") {
		t.Errorf("what could not be written is lost: %q", last[len(last)-1])
	}
}

// TestAudit_keepsRejectionsWithoutStore: for as long as the store is away, and strangers go on
// being refused while it is tried, no more kinds of refusals are kept in mind than
// otherwise, wherever they come from, and none is lost.
func TestAudit_keepsRejectionsWithoutStore(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	away, cancel := context.WithCancel(t.Context())
	cancel()
	times := int64(0)
	refuse := func() {
		times++
		request := &auth.Request{ID: "r", Address: fmt.Sprintf("198.%d.%d.%d", times/62_500, times/250%250, times%250)}
		b.RecordRejection(auth.WithRequest(t.Context(), request), models.KeyRefused, models.Unauthenticated)
	}
	clock, fresh := b.Now, 0
	b.Now = func() time.Time { // the entries are being written
		for ; fresh > 0; fresh-- {
			refuse()
		}
		return clock()
	}
	for range 5 {
		refuse()
		fresh = 800
		if err := b.FlushRejections(away); err == nil {
			t.Error("written without a store")
		}
	}
	testutil.Must(t, b.FlushRejections(t.Context()))
	var entries []models.AuditEntry
	testutil.Must(t, b.DB.Read(t.Context()).Find(&entries).Error)
	counted := int64(0)
	for _, e := range entries {
		counted += e.Count
	}
	if len(entries) != 1001 || counted != times || times < 4000 {
		t.Errorf("%d entries of %d refusals, want 1001 of %d", len(entries), counted, times)
	}
}

// TestRevokeKeys ends an agent's keys for the operator, and says so in the log.
func TestRevokeKeys(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	agent, other := b.NewAgent("x"), b.NewAgent("x")
	var ended []auth.KeyHash
	b.Keys.OnRevoked = func(key auth.KeyHash) { ended = append(ended, key) }
	testutil.Must(t, b.RevokeKeys(t.Context(), agent.AgentID))
	if len(ended) != 1 || ended[0] != agent.KeyHash {
		t.Errorf("%d keys ended", len(ended))
	}
	if _, err := b.RotateKey(t.Context(), agent); checkCode(err, models.Unauthenticated) != nil {
		t.Errorf("the key goes on: %v", err)
	}
	if _, err := b.RotateKey(t.Context(), other); err != nil {
		t.Error(err)
	}
	testutil.Must(t, checkCode(b.RevokeKeys(t.Context(), "nobody"), models.NotFound))
	if got := auditLines(t, b); got[2] != "operator | keys.revoked | "+agent.AgentID+" |  |  | OK | 1" || len(got) != 4 {
		t.Errorf("the log says %q", got)
	}
}

package market_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestRotateKey: of concurrent rotations with the same key one succeeds. The others get
// UNAUTHENTICATED, although the key was valid when they authenticated.
func TestRotateKey(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	agent := b.NewAgent()
	var keys atomic.Pointer[string]
	runConcurrently(10, func(int) {
		key, err := b.RotateKey(t.Context(), agent)
		if err != nil {
			wantCode(t, err, models.Unauthenticated)
			return
		}
		if !keys.CompareAndSwap(nil, &key) {
			t.Error("a second rotation succeeded")
		}
	})
	actor, err := b.Keys.Authenticate(t.Context(), *keys.Load())
	if err != nil || actor.AgentID != agent.AgentID {
		t.Errorf("the new key authenticates %v (%v)", actor, err)
	}
	_, err = b.RotateSecret(t.Context(), agent, 0)
	wantCode(t, err, models.Unauthenticated)
	_, err = b.SetWebhook(t.Context(), agent, "https://hook.example.com", nil)
	wantCode(t, err, models.Unauthenticated)
}

// TestRotateKey_replayed: concurrent rotations with one Idempotency-Key return one new key.
// The replaced key returns it again with this Idempotency-Key only.
func TestRotateKey_replayed(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	registered, err := b.Register(t.Context(), market.RegisterAgentInput{Name: "Agent"})
	testutil.Must(t, err)
	agent := auth.Actor{AgentID: registered.Agent.ID, KeyHash: auth.HashKey(registered.APIKey)}
	ctx := auth.WithRequest(t.Context(), &auth.Request{IdempotencyKey: "sixteen characters"})
	var keys sync.Map
	rotate := func(actor auth.Actor) {
		key, err := b.RotateKey(ctx, actor)
		testutil.Must(t, err)
		keys.Store(key, true)
	}
	runConcurrently(10, func(int) { rotate(agent) })
	replaced, err := b.AuthenticateReplaced(ctx, registered.APIKey)
	testutil.Must(t, err)
	rotate(replaced)
	n := 0
	keys.Range(func(any, any) bool { n++; return true })
	if n != 1 || !replaced.Replaced || replaced.AgentID != agent.AgentID {
		t.Errorf("got %d new keys and the actor %v", n, replaced)
	}
	other := auth.WithRequest(t.Context(), &auth.Request{IdempotencyKey: "another of sixteen"})
	_, err = b.AuthenticateReplaced(other, registered.APIKey)
	wantCode(t, err, models.Unauthenticated)
	_, err = b.RotateKey(other, replaced)
	wantCode(t, err, models.Unauthenticated)
}

// TestWalletEvents_transferOrder: the events of a wallet are in the order of its transfers,
// so that the last event has the current balance.
func TestWalletEvents_transferOrder(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	agent := b.NewAgent()
	runConcurrently(40, func(int) { b.NewTask(agent, 2) })
	_, err := b.DB.AssignCursors(t.Context(), true)
	testutil.Must(t, err)
	var balances []models.Credits
	testutil.Must(t, b.DB.Read(t.Context()).Raw(`SELECT t.balance_after FROM events e JOIN transfers t ON t.id = e.transfer_id
		WHERE e.kind = ? AND e.agent_id = ? ORDER BY e.seq`, models.WalletChanged, agent.AgentID).Scan(&balances).Error)
	for i, balance := range balances {
		if want := models.Credits(100 - 2*i); balance != want {
			t.Fatalf("balances in the order of events are %v, want 100, 98, ...", balances)
		}
	}
	if len(balances) != 41 {
		t.Errorf("%d events, want 41", len(balances))
	}
}

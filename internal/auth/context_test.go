package auth_test

import (
	"testing"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/models"
)

func TestContext(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	if actor, ok := auth.FromContext(ctx); ok {
		t.Errorf("an empty context has the actor %v", actor)
	}
	if _, err := auth.Require(ctx); err == nil || models.CodeOf(err) != models.Unauthenticated {
		t.Errorf("without an actor: got %v, want UNAUTHENTICATED", err)
	}
	if request := auth.RequestFrom(ctx); request == nil || request.ID != "" {
		t.Errorf("an empty context has request %v", request)
	}
	want := auth.Actor{AgentID: agentID, KeyHash: auth.HashKey("key")}
	request := &auth.Request{ID: "r1"}
	ctx = auth.WithRequest(auth.WithActor(ctx, want), request)
	if actor, err := auth.Require(ctx); err != nil || actor != want {
		t.Errorf("got %v (%v), want %v", actor, err, want)
	}
	if auth.RequestFrom(ctx) != request {
		t.Error("got another request")
	}
	auth.RequestFrom(ctx).Replayed.Store(true)
	if !request.Replayed.Load() {
		t.Error("a change of the request is lost")
	}
}

// TestRequest_Network checks that all addresses of a /64 count as one client.
func TestRequest_Network(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.1":           "192.0.2.1",
		"::ffff:192.0.2.1":    "192.0.2.1",
		"2001:db8:1:2::1":     "2001:db8:1:2::/64",
		"2001:db8:1:2:ff::ff": "2001:db8:1:2::/64",
		"2001:db8:1:3::1":     "2001:db8:1:3::/64",
		"fe80::1%eth0":        "fe80::/64",
		"":                    "",
		"@":                   "@",
	} {
		if got := (&auth.Request{Address: address}).Network(); got != want {
			t.Errorf("network of %q is %q, want %q", address, got, want)
		}
	}
}

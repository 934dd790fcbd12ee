package auth_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// secrets are those of the store's agents, as webhooks keeps them.
func secrets() auth.Sealed {
	return auth.Sealed{Table: "secrets", Key: []string{"agent_id"}, Columns: []string{"sealed", "old"}, Label: func(key []string) string { return key[0] }}
}

// seal gives so many agents a secret each, that box seals; every third has an old
// one too.
func (b *bundle) seal(box *auth.Box, agents int) {
	b.t.Helper()
	b.write(func(tx *database.Tx) error {
		for i := range agents {
			id := fmt.Sprintf("agent-%04d", i)
			row := models.Secret{AgentID: id, Sealed: box.Seal([]byte("secret of "+id), id), Hint: "whsec_"}
			if i%3 == 0 {
				row.Old = box.Seal([]byte("old of "+id), id)
			}
			agent := models.Agent{ID: id, Name: "Agent", Capabilities: []string{}, PricePerTask: 10}
			if err := errors.Join(tx.Create(&agent).Error, tx.Create(&row).Error); err != nil {
				return err
			}
		}
		return nil
	})
}

// TestReseal: what one key sealed is sealed with another, more than a page of it and
// while some of it changes; what is done already stays as it is.
func TestReseal(t *testing.T) {
	t.Parallel()
	const agents = 1100
	b := open(t)
	old, fresh := newBox(t, "the old secret key"), newBox(t, "the new secret key")
	both, err := auth.NewBox([]byte("the new secret key"), []byte("the old secret key"))
	must(t, err)
	b.seal(old, agents)
	var changing sync.WaitGroup
	changing.Go(func() { // as an agent that has its secret replaced
		for i := range agents / 10 {
			id := fmt.Sprintf("agent-%04d", 10*i)
			must(t, b.db.Write(t.Context(), func(tx *database.Tx) error {
				return tx.Model(&models.Secret{AgentID: id}).Update("sealed", both.Seal([]byte("replaced"), id)).Error
			}))
		}
	})
	var done auth.Resealed
	must(t, auth.Reseal(t.Context(), b.db, both, secrets(), func(now auth.Resealed) { done = now }))
	changing.Wait()
	if done.Table != "secrets" || done.Rows != agents || done.Changed < agents*9/10 {
		t.Errorf("told of %+v", done)
	}
	var rows []models.Secret
	must(t, b.db.Read(t.Context()).Find(&rows).Error)
	for _, row := range rows {
		plain, err := fresh.Open(row.Sealed, row.AgentID)
		if err != nil || string(plain) != "secret of "+row.AgentID && string(plain) != "replaced" {
			t.Errorf("the secret of %s is %q (%v)", row.AgentID, plain, err)
		}
		if row.Old == nil {
			continue
		}
		if plain, err := fresh.Open(row.Old, row.AgentID); err != nil || string(plain) != "old of "+row.AgentID {
			t.Errorf("the old secret of %s is %q (%v)", row.AgentID, plain, err)
		}
	}
	must(t, auth.Reseal(t.Context(), b.db, both, secrets(), func(now auth.Resealed) { done = now }))
	if done.Rows != agents || done.Changed != 0 {
		t.Errorf("the second time it is told of %+v", done)
	}
}

// TestReseal_refuses what neither key opens, names it, and shows nothing of it.
func TestReseal_refuses(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.seal(newBox(t, "a key that is lost"), 1)
	both, err := auth.NewBox([]byte("the new secret key"), []byte("the old secret key"))
	must(t, err)
	before := b.sealed()
	err = auth.Reseal(t.Context(), b.db, both, secrets(), func(auth.Resealed) { t.Error("told of a page") })
	if err == nil || !strings.Contains(err.Error(), "sealed of agent-0000") || strings.Contains(err.Error(), "secret of") {
		t.Errorf("got %v", err)
	}
	if b.sealed() != before {
		t.Error("something was changed")
	}
}

func (b *bundle) sealed() (all string) {
	b.t.Helper()
	var rows []models.Secret
	must(b.t, b.db.Read(b.t.Context()).Find(&rows).Error)
	return fmt.Sprint(rows)
}

// TestBoxOfTwoKeys opens with both and seals with the first.
func TestBoxOfTwoKeys(t *testing.T) {
	t.Parallel()
	old, fresh := newBox(t, "the old secret key"), newBox(t, "the new secret key")
	both, err := auth.NewBox([]byte("the new secret key"), []byte("the old secret key"))
	must(t, err)
	for name, sealed := range map[string][]byte{"the old": old.Seal([]byte("plain"), "label"), "the new": fresh.Seal([]byte("plain"), "label")} {
		if plain, err := both.Open(sealed, "label"); err != nil || string(plain) != "plain" {
			t.Errorf("%s: %q (%v)", name, plain, err)
		}
		if plain, err := both.Open(sealed, "another"); err == nil {
			t.Errorf("%s opens as %q under another label", name, plain)
		}
	}
	sealed := both.Seal([]byte("plain"), "label")
	if _, err := fresh.Open(sealed, "label"); err != nil {
		t.Errorf("the new key alone: %v", err)
	}
	if plain, err := old.Open(sealed, "label"); err == nil {
		t.Errorf("the old key opens %q", plain)
	}
	if _, err := auth.NewBox([]byte("the new secret key"), []byte("short")); err == nil {
		t.Error("a short other key is taken")
	}
}

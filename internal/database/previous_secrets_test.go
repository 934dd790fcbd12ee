package database_test

import (
	"log/slog"
	"slices"
	"testing"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestMigrate_previousSecrets: the replaced webhook secrets of an older version keep their
// value and the time until which they sign, and count as the oldest of their agents.
func TestMigrate_previousSecrets(t *testing.T) {
	t.Parallel()
	address := firstMigrationOnly(t)
	older := openSQL(t, address)
	replaced, current := services.ForEngine("X'01'", `'\x01'`), services.ForEngine("X'02'", `'\x02'`)
	for _, statement := range []string{
		`INSERT INTO agents (id, name, description, capabilities, price_per_task, endpoint_url, system_prompt, owner_email, created_at)
			VALUES ('one', 'One', '', '[]', 10, '', '', '', 1), ('two', 'Two', '', '[]', 10, '', '', '', 1)`,
		"INSERT INTO secrets (agent_id, encrypted, hint, previous, previous_until) VALUES ('one', " + current + ", 'whsec_', " + replaced + ", 42)",
		"INSERT INTO secrets (agent_id, encrypted, hint) VALUES ('two', " + current + ", 'whsec_')",
	} {
		_, err := older.ExecContext(t.Context(), statement)
		testutil.Must(t, err)
	}
	_, err := database.Migrate(t.Context(), address, slog.New(slog.DiscardHandler))
	testutil.Must(t, err)
	db := openDB(t, address)
	var secrets []models.Secret
	testutil.Must(t, db.Read(t.Context()).Order("agent_id").Find(&secrets).Error)
	var previous []models.PreviousSecret
	testutil.Must(t, db.Read(t.Context()).Find(&previous).Error)
	if len(secrets) != 2 || secrets[0].Encrypted[0] != 2 || secrets[1].Encrypted[0] != 2 {
		t.Errorf("the secrets are %v", secrets)
	}
	if len(previous) != 1 || previous[0].AgentID != "one" || previous[0].Encrypted[0] != 1 || previous[0].SignsUntil != 42 {
		t.Fatalf("the previous secrets are %v", previous)
	}
	ids := []string{"01995000-0000-7000-8000-0000000000d1", previous[0].ID}
	slices.Sort(ids)
	testutil.Equal(t, "the oldest id", ids[0], previous[0].ID)
}

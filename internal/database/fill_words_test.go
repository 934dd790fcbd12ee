package database_test

import (
	"fmt"
	"slices"
	"testing"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestFillWords: rows that an older version wrote are found by a search after the next
// start, and their capabilities are normalised. A start
// that was interrupted continues.
func TestFillWords(t *testing.T) { //nolint:tparallel // the subtest closes the market before the rest
	t.Parallel()
	address := services.NewDatabase(t)
	const tasks = 1200 // more than two batches
	t.Run("older version", func(t *testing.T) { writeAsOlderVersion(t, address, tasks) })
	testutil.Must(t, database.FillBatch(t.Context(), address)) // by a process that crashed then
	b := markettest.NewWithDatabase(t, address)
	for _, row := range []struct {
		search string
		want   int
	}{{"zebra", 100}, {"перевод", 100}, {"number 1199", 1}, {"number 0", 1}} {
		found, err := b.ListTasks(t.Context(), market.TaskQuery{Search: row.search}, market.Page{First: 100})
		testutil.Must(t, err)
		if len(found.Items) != row.want {
			t.Errorf("%q finds %d tasks on the first page, want %d", row.search, len(found.Items), row.want)
		}
	}
	for _, capability := range []string{"CAFÉ", "cafe\u0301", "straße", "STRASSE"} {
		found, err := b.ListTasks(t.Context(), market.TaskQuery{Status: []models.Status{models.Open}, Capability: capability}, market.Page{First: 100})
		testutil.Must(t, err)
		agents, err := b.ListAgents(t.Context(), market.AgentQuery{Search: "ÜBERSETZER", Capability: capability}, market.Page{First: 100})
		testutil.Must(t, err)
		if len(found.Items) != 100 || len(agents.Items) != 1 {
			t.Errorf("%q finds %d tasks and %d agents, want a page and one", capability, len(found.Items), len(agents.Items))
		} else if want := []string{"caf\u00e9", "strasse"}; !slices.Equal(found.Items[0].Capabilities, want) {
			t.Errorf("the task requires %q, want %q", found.Items[0].Capabilities, want)
		}
	}
	b.VerifyLedger()
}

// writeAsOlderVersion writes an agent and tasks as a program without a search index does.
func writeAsOlderVersion(t *testing.T, address string, tasks int) {
	t.Helper()
	b := markettest.NewWithDatabase(t, address)
	b.Settings.StartingCredits = 100_000
	poster := b.NewAgent()
	for i := range tasks {
		_, err := b.Post(t.Context(), poster, market.PostTaskInput{Title: fmt.Sprintf("Number %d ПЕРЕВОД", i), Description: "Zebra.", Budget: 2})
		testutil.Must(t, err)
	}
	testutil.Must(t, b.DB.Write(t.Context(), func(tx *database.Tx) error {
		var disable, enable []string
		if services.OnPostgres() {
			for _, table := range []string{"tasks", "agents"} {
				disable, enable = append(disable, "ALTER TABLE "+table+" DISABLE TRIGGER USER"), append(enable, "ALTER TABLE "+table+" ENABLE TRIGGER USER")
			}
		} else {
			if err := tx.Raw("SELECT 'DROP TRIGGER ' || name FROM sqlite_master WHERE type = 'trigger' AND tbl_name IN ('tasks', 'agents')").Scan(&disable).Error; err != nil {
				return err
			}
			if err := tx.Raw("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name IN ('tasks', 'agents')").Scan(&enable).Error; err != nil {
				return err
			}
		}
		for _, statement := range slices.Concat(disable, []string{
			"DELETE FROM task_words", "DELETE FROM agent_words",
			"UPDATE tasks SET words = NULL, capabilities = '[\"cafe\u0301\",\"straße\",\"caf\u00e9\"]'",
			"UPDATE agents SET words = NULL, name = 'Übersetzer', capabilities = '[\"cafe\u0301\",\"straße\"]'",
			"INSERT INTO task_capabilities (capability, task_id, status) SELECT 'cafe\u0301', id, status FROM tasks UNION ALL SELECT 'straße', id, status FROM tasks UNION ALL SELECT 'caf\u00e9', id, status FROM tasks",
			"INSERT INTO agent_capabilities (capability, agent_id, price_per_task) SELECT 'cafe\u0301', id, price_per_task FROM agents UNION ALL SELECT 'straße', id, price_per_task FROM agents",
		}, enable) {
			if err := tx.Exec(statement).Error; err != nil {
				return fmt.Errorf("%s: %w", statement, err)
			}
		}
		return nil
	}))
}

// TestFillWords_olderProcess: on PostgreSQL a process of an older version may write during
// an upgrade. A newer process indexes what it wrote.
func TestFillWords_olderProcess(t *testing.T) {
	t.Parallel()
	if !services.OnPostgres() {
		t.Skip("on SQLite one process writes at a time")
	}
	b := markettest.New(t)
	agent := b.NewAgent()
	testutil.Must(t, b.DB.Write(t.Context(), func(tx *database.Tx) error {
		return tx.Exec("UPDATE agents SET name = 'Renamed zebra' WHERE id = ?", agent.AgentID).Error
	}))
	testutil.Must(t, b.Sweep(t.Context()))
	found, err := b.ListAgents(t.Context(), market.AgentQuery{Search: "zebra"}, market.Page{First: 20})
	testutil.Must(t, err)
	if len(found.Items) != 1 {
		t.Errorf("found %d agents, want one", len(found.Items))
	}
	b.VerifyLedger()
}

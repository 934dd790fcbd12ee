package replicas_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
)

// TestSecretLeaks searches every row of every table for the keys and secrets that replicas
// issued. It finds an API key that is planted.
func TestSecretLeaks(t *testing.T) {
	t.Parallel()
	database := services.NewPostgresDatabase(t)
	servers := startReplicas(t, 2, database, services.NATSURL())
	agent := servers[0].Register("agent", map[string]any{"webhookUrl": "https://agent.example.com/hook"}, "Idempotency-Key", "a key that is long enough")
	var ignored any
	for _, document := range []string{`mutation { rotateWebhookSecret(input: {overlapMinutes: 5}) { secret } }`, `mutation { rotateApiKey { apiKey } }`} {
		testutil.Must(t, servers[0].Query(agent.Key, document, nil, &ignored, "Idempotency-Key", document[:20]))
	}
	rows := dumpDatabase(t, database)
	if !strings.Contains(rows, agent.ID) || !strings.Contains(rows, "key.rotated") {
		t.Fatalf("unexpected rows: %s", rows)
	}
	if shown := servers[0].FindSecrets([]byte(rows)); len(shown) > 0 {
		t.Errorf("the database contains %q", shown)
	}
	if planted := servers[0].FindSecrets([]byte(rows + agent.Key)); !slices.Equal(planted, []string{agent.Key}) {
		t.Errorf("a planted key is not found; found %q", planted)
	}
}

// dumpDatabase returns all rows of a database as text.
func dumpDatabase(t *testing.T, database string) string {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), database)
	testutil.Must(t, err)
	t.Cleanup(pool.Close)
	texts := func(query string) []string {
		rows, err := pool.Query(t.Context(), query)
		testutil.Must(t, err)
		all, err := pgx.CollectRows(rows, pgx.RowTo[string])
		testutil.Must(t, err)
		return all
	}
	var all strings.Builder
	for _, table := range texts("SELECT table_name::text FROM information_schema.tables WHERE table_schema = current_schema()") {
		for _, row := range texts("SELECT t::text FROM " + pgx.Identifier{table}.Sanitize() + " t") {
			all.WriteString(row + "\n")
		}
	}
	return all.String()
}

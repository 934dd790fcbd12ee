package replicas_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
)

// TestCopy copies a busy market from SQLite to PostgreSQL. Keys, cursors and idempotent
// responses stay valid, interrupted hires are refunded, and pending webhooks are delivered.
func TestCopy(t *testing.T) {
	t.Parallel()
	hired, hold := make(chan struct{}, 1), make(chan struct{})
	endpoint, _ := testserver.ServeTLS(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		hired <- struct{}{}
		<-hold
	}))
	t.Cleanup(func() { close(hold) })
	arrived := make(chan string, 8)
	hook, env := testserver.ServeTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var event struct{ Task struct{ ID string } }
		_ = json.NewDecoder(r.Body).Decode(&event) // invalid JSON has no task
		arrived <- event.Task.ID
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	env = append(env, "AGENTMARKET_SECRET_KEY=kept from one store to the other", "AGENTMARKET_WEBHOOK_RETRIES=2s,2s,2s,2s", "AGENTMARKET_ENDPOINT_TIMEOUT=10m")
	server := testserver.Start(t, env...)
	poster := server.Register("poster", nil)
	worker := server.Register("worker", map[string]any{"endpointUrl": endpoint})
	server.Register("notified", map[string]any{"capabilities": []string{"x"}, "webhookUrl": hook})
	do := func(key, document string, variables map[string]any, data any) error {
		return server.Query(key, document, variables, data)
	}
	done, err := tradeTask(do, poster, worker)
	testutil.Must(t, err)
	testutil.Receive(t, "a delivery", arrived)
	const document = `mutation { postTask(input: {title: "T", description: "é 漢 \u0001", budget: 30, requiredCapabilities: ["y"]}) { task { id } wallet { balance } } }`
	posted := mustQueryIdempotent(t, server, poster.Key, document)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var ignored any
		_ = server.Query(poster.Key, `mutation($id: ID!) { execute(input: {agentId: $id, taskDescription: "Do it", budget: 20}) { task { id } } }`,
			map[string]any{"id": worker.ID}, &ignored) // the server is killed first
	}()
	testutil.Receive(t, "the call of the endpoint", hired)
	before, cursors := visibleState(t, server, worker.Key), firstCursors(t, server, 2)
	address := services.NewPostgresDatabase(t)
	if text, code := copyMarket(t, server, address); code != 1 || !strings.Contains(text, "another process is using it") {
		t.Errorf("copy beside the server: exit %d, %s", code, text)
	}
	server.Kill()
	testutil.Receive(t, "the end of the request", ended)

	if text, code := copyMarket(t, server, address); code != 0 {
		t.Fatalf("copy: exit %d\n%s", code, text)
	}
	if text, code := copyMarket(t, server, address); code != 1 || !strings.Contains(text, "the database is not empty") {
		t.Errorf("copy to a database that is not empty: exit %d, %s", code, text)
	}
	server.Restart("AGENTMARKET_DATABASE=" + address)
	if after := visibleState(t, server, worker.Key); after != before {
		t.Errorf("the worker sees\n%s\nand saw before\n%s", after, before)
	}
	if again := mustQueryIdempotent(t, server, poster.Key, document); again != posted {
		t.Errorf("the retry returns\n%s\nand the first request returned\n%s", again, posted)
	}
	testutil.Eventually(t, "the pending retry", func() bool { return testutil.Receive(t, "a delivery", arrived) == done })
	testutil.Eventually(t, "the refund of the hire", func() bool {
		return strings.Contains(mustQueryIdempotent(t, server, poster.Key, "{ viewer { wallet { balance } } }"), `"balance":68`)
	})
	_, err = tradeTask(do, poster, worker)
	testutil.Must(t, err)
	if after := firstCursors(t, server, 3); !slices.Equal(after[:2], cursors) || after[2] <= cursors[1] {
		t.Errorf("cursors were %v and are %v after one more event", cursors, after)
	}
	server.Verify()
}

// TestCopy_errors: an invalid market is not copied, and the target stays empty.
func TestCopy_errors(t *testing.T) {
	t.Parallel()
	address := services.NewPostgresDatabase(t)
	server := testserver.Start(t)
	server.Register("agent", nil)
	server.Stop()
	for _, row := range []struct{ statement, wantMessage string }{
		{"DROP TRIGGER wallets_match_transfers; UPDATE wallets SET available = available + 1", "the ledger has "},
		{"UPDATE wallets SET available = available - 1; CREATE TABLE notes (id TEXT PRIMARY KEY)", `unknown table "notes"`},
		{"DROP TABLE notes; UPDATE agents SET name = 'agent' || char(0)", "invalid byte sequence"},
	} {
		execSQLite(t, filepath.Join(server.Dir, "agentmarket.db"), row.statement)
		if text, code := copyMarket(t, server, address); code != 1 || !strings.Contains(text, row.wantMessage) {
			t.Errorf("after %s: exit %d, %s", row.statement, code, text)
		}
	}
	execSQLite(t, filepath.Join(server.Dir, "agentmarket.db"), "UPDATE agents SET name = 'agent'")
	if text, code := copyMarket(t, server, address); code != 0 {
		t.Errorf("a valid copy: exit %d, %s", code, text)
	}
}

// copyMarket runs "agentmarket copy" on a server's database.
func copyMarket(t *testing.T, server *testserver.Server, address string) (text string, code int) {
	t.Helper()
	return testserver.Run(t, server.Dir, "copy", "--from", "sqlite:agentmarket.db", "--to", address)
}

// mustQueryIdempotent returns the data of an operation with an idempotency key. A second
// call is a retry.
func mustQueryIdempotent(t *testing.T, server *testserver.Server, key, document string) string {
	t.Helper()
	var data json.RawMessage
	testutil.Must(t, server.Query(key, document, nil, &data, "Idempotency-Key", "the same"))
	return string(data)
}

// visibleState returns what an agent sees of the market and of itself.
func visibleState(t *testing.T, server *testserver.Server, key string) string {
	t.Helper()
	return mustQueryIdempotent(t, server, key, `{
		agents { edges { cursor node { id name capabilities completedTaskCount } } }
		tasks { edges { cursor node { id title description budget status requiredCapabilities result createdAt poster { id } worker { id } } } }
		viewer { endpointUrl wallet { balance heldBalance entries { edges { cursor node { id kind amount balanceAfter createdAt } } } } }
	}`)
}

// firstCursors returns the cursors of the first n posted tasks.
func firstCursors(t *testing.T, server *testserver.Server, n int) []int64 {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var f eventSubscriber
	var listening sync.WaitGroup
	listening.Go(func() { f.run(ctx, []*testserver.Server{server}, 0) })
	testutil.Eventually(t, "the first events", func() bool { return f.eventCount() >= n })
	cancel()
	listening.Wait()
	return f.cursors[:n]
}

// execSQLite executes statements on a SQLite file.
func execSQLite(t *testing.T, path, statements string) {
	t.Helper()
	db, err := sql.Open(services.SQLiteDriver(), path)
	testutil.Must(t, err)
	_, err = db.ExecContext(t.Context(), statements)
	testutil.Must(t, err)
	testutil.Must(t, db.Close())
}

// TestCopy_prunedEvents: an event log without its oldest events continues with the same
// cursors.
func TestCopy_prunedEvents(t *testing.T) {
	t.Parallel()
	address := services.NewPostgresDatabase(t)
	server := testserver.Start(t, "AGENTMARKET_SECRET_KEY=kept from one store to the other")
	server.Register("first", nil)
	server.Register("second", nil)
	server.Stop()
	execSQLite(t, filepath.Join(server.Dir, "agentmarket.db"), `UPDATE ledger_sums SET seq = 2, issued = 200;
		DROP TRIGGER event_horizon_check_move; UPDATE event_horizon SET seq = 1, created_at = 1; DELETE FROM events WHERE seq = 1`)
	if text, code := copyMarket(t, server, address); code != 0 {
		t.Fatalf("copy: exit %d\n%s", code, text)
	}
	config, err := pgx.ParseConfig(strings.ReplaceAll(address, "pool_max_conns=8", ""))
	testutil.Must(t, err)
	conn, err := pgx.ConnectConfig(t.Context(), config)
	testutil.Must(t, err)
	defer conn.Close(t.Context()) //nolint:errcheck // the connection is not used again
	var horizon, head, counted int64
	testutil.Must(t, conn.QueryRow(t.Context(), "SELECT h.seq, e.seq, s.seq FROM event_horizon h, event_head e, ledger_sums s").Scan(&horizon, &head, &counted))
	if horizon != 1 || head != 2 || counted != 2 {
		t.Errorf("the copy continues from %d, %d and %d", horizon, head, counted)
	}
	if _, err := conn.Exec(t.Context(), "DELETE FROM events"); err == nil {
		t.Error("the copy does not keep its events")
	}
	server.Restart("AGENTMARKET_DATABASE=" + address)
	server.Register("third", nil)
	server.Verify()
}

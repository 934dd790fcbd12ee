package replicas_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
)

// TestStart_errors: a database that cannot be used is rejected with one line that says why.
func TestStart_errors(t *testing.T) {
	t.Parallel()
	store := services.NewPostgresCluster(t)
	testutil.Must(t, store.AddHBARule(t.Context(), "host all guarded 127.0.0.1/32 scram-sha-256"))
	testutil.Must(t, store.Exec(t.Context(), "CREATE ROLE guarded LOGIN PASSWORD 'right'", "CREATE ROLE guest LOGIN",
		"CREATE DATABASE guarded OWNER guarded", "CREATE DATABASE newer", "CREATE DATABASE foreign_one", "CREATE DATABASE frozen"))
	at := func(user, database string) string {
		return "postgres://" + user + "@" + store.HostPort() + "/" + database
	}
	execStatement(t, at("test", "foreign_one"), "CREATE TABLE tasks (id int)")
	for _, database := range []string{"newer", "frozen"} {
		server := testserver.Start(t, replicaSettings(at("test", database), "", nil)...)
		server.Stop()
	}
	execStatement(t, at("test", "newer"), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, true)")
	testutil.Must(t, store.Exec(t.Context(), "ALTER DATABASE frozen SET default_transaction_read_only = on"))

	unused := "127.0.0.1:1"
	for _, row := range []struct {
		database, nats, wantMessage string
		code                        int
	}{
		{"postgres://test:secret@127.0.0.1:port/market", "", "invalid port", 1},
		{"postgres://test:secret@127.0.0.1:1/market?sslmode=no", "", "sslmode", 1},
		{"postgres://test:secret@127.0.0.1:1/market?pool_max_conns=many", "", "pool_max_conns", 1},
		{"postgres:/test:secret@127.0.0.1:1/market", "", "give a postgres:// address", 1},
		{"host=127.0.0.1 user=test password=secret@1 dbname=market", "", "give a postgres:// address", 1},
		{"postgres://test:secret@" + unused + "/market", "", "connection refused", 1},
		{at("guarded:secret", "guarded"), "", "password authentication failed", 1},
		{at("test:secret", "none"), "", `database "none" does not exist`, 1},
		{at("guest:secret", "postgres"), "", "permission denied for schema public", 1},
		{at("test:secret", "newer"), "", "schema version 999 is newer than version", 1},
		{at("test:secret", "frozen"), "", "read only", 1},
		{at("test:secret", "foreign_one"), "", `not an AgentMarket database: the table "tasks" belongs to another program`, 1},
		{at("test:secret", "postgres"), "nats://test:secret@127.0.0.1:port", "nats-url: ", 2},
		{at("test:secret", "postgres"), "https://test:secret@127.0.0.1:4222", "nats-url: ", 2},
	} {
		args := []string{"--addr=127.0.0.1:0", "--secret-key=the same to every replica", "--database=" + row.database}
		if row.nats != "" {
			args = append(args, "--nats-url="+row.nats)
		}
		testserver.ExpectExit(t, row.code, row.wantMessage, args...)
	}
	testserver.Start(t, replicaSettings(at("guarded:right", "guarded"), "", nil)...) // the right password works
}

func execStatement(t *testing.T, address, statement string) {
	t.Helper()
	conn := connect(t, address)
	_, err := conn.Exec(t.Context(), statement)
	testutil.Must(t, err)
	testutil.Must(t, conn.Close(t.Context()))
}

// connect connects to a database by the address in a server's settings, without its pool
// settings.
func connect(t *testing.T, address string) *pgx.Conn {
	t.Helper()
	config, err := pgxpool.ParseConfig(address)
	testutil.Must(t, err)
	conn, err := pgx.ConnectConfig(t.Context(), config.ConnConfig)
	testutil.Must(t, err)
	return conn
}

// TestStart_withoutNATS: a server without NATS logs that once, wakes the others through the
// database, and uses NATS when it becomes available.
func TestStart_withoutNATS(t *testing.T) {
	t.Parallel()
	address, bus := services.NewPostgresDatabase(t), services.NewNATSServer(t)
	server := testserver.Start(t, replicaSettings(address, bus.Address(), nil)...)
	poster := server.Register("poster", nil)
	listening := connect(t, address)
	defer listening.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // the connection is not used again
	_, err := listening.Exec(t.Context(), "LISTEN agentmarket_events")
	testutil.Must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), testutil.Timeout)
	defer cancel()
	server.PostTask(poster.Key, "x")
	if _, err = listening.WaitForNotification(ctx); err != nil {
		t.Errorf("no notification through the database: %v", err)
	}
	testutil.Must(t, bus.Start(t.Context()))
	conn, err := nats.Connect(bus.Address())
	testutil.Must(t, err)
	defer conn.Close()
	woken, err := conn.SubscribeSync("agentmarket.events")
	testutil.Must(t, err)
	testutil.Must(t, conn.Flush())
	testutil.Eventually(t, "the server to find NATS", func() bool { return strings.Contains(server.Log(), "connected to NATS") })
	server.PostTask(poster.Key, "x")
	if _, err = woken.NextMsgWithContext(ctx); err != nil {
		t.Errorf("no message over NATS: %v", err)
	}
	if warnings := strings.Count(server.Log(), `"level":"WARN"`); warnings != 1 || !strings.Contains(server.Log(), "NATS is unreachable") {
		t.Errorf("%d warnings:\n%s", warnings, server.Log())
	}
}

package database_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// openReplicas opens a database n times concurrently, like n processes.
func openReplicas(t *testing.T, n int) []*database.DB {
	t.Helper()
	address := services.NewPostgresDatabase(t)
	dbs := make([]*database.DB, n)
	var group sync.WaitGroup
	for i := range dbs {
		group.Go(func() {
			db, err := database.Open(t.Context(), address, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Error(err)
				return
			}
			dbs[i] = db
		})
	}
	group.Wait()
	t.Cleanup(func() {
		for _, db := range dbs {
			if db != nil {
				testutil.Must(t, db.Close())
			}
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	return dbs
}

// TestAssignCursors_concurrent assigns cursors in several processes while writers commit
// in a different order than they insert. A reader by cursor gets every event once. To
// prove that the test is effective, a reader by ID must miss events.
func TestAssignCursors_concurrent(t *testing.T) {
	t.Parallel()
	dbs := openReplicas(t, 2)
	const writers, each = 32, 40
	var group sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	var assigning sync.WaitGroup
	for _, db := range dbs {
		assigning.Go(func() {
			for ctx.Err() == nil {
				if _, err := db.AssignCursors(ctx, true); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
	var byCursor, byID []int64
	read := func(column string, last *int64, ids *[]int64) {
		var page []models.Event
		testutil.Must(t, dbs[0].Read(t.Context()).Where(column+" > ? AND seq IS NOT NULL", *last).Order(column).Find(&page).Error)
		for i := range page {
			*ids = append(*ids, page[i].ID)
			*last = page[i].Seq
			if column == "id" {
				*last = page[i].ID
			}
		}
	}
	written := make(chan int64, writers*each)
	for w := range writers {
		group.Go(func() {
			for range each {
				var id int64
				err := dbs[w%2].Write(t.Context(), func(tx *database.Tx) error {
					err := tx.QueryRow("INSERT INTO events (kind, created_at) VALUES (?, 0) RETURNING id", []any{models.WalletChanged}, &id)
					if err == nil && rand.IntN(4) == 0 {
						err = tx.Exec("SELECT pg_sleep(?)", rand.Float64()/100).Error
					}
					return err
				})
				if err != nil {
					t.Error(err)
				}
				written <- id
			}
		})
	}
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	var cursor, id int64
	for writing := true; writing; {
		select {
		case <-done:
			writing = false
		default:
		}
		read("seq", &cursor, &byCursor)
		read("id", &id, &byID)
	}
	stop()
	assigning.Wait()
	_, err := dbs[0].AssignCursors(t.Context(), true)
	testutil.Must(t, err)
	read("seq", &cursor, &byCursor)
	read("id", &id, &byID)
	close(written)
	var all []int64
	for id := range written {
		all = append(all, id)
	}
	slices.Sort(all)
	slices.Sort(byCursor)
	if !slices.Equal(all, byCursor) {
		t.Errorf("wrote %d events, read %d by cursor", len(all), len(byCursor))
	}
	if len(byID) == len(all) {
		t.Error("the reader by ID missed no event, so the test proves nothing")
	}
	var head int64
	testutil.Must(t, dbs[0].Read(t.Context()).Raw("SELECT MAX(seq) FROM events").Scan(&head).Error)
	if head != int64(len(all)) {
		t.Errorf("the last cursor is %d, want %d without gaps", head, len(all))
	}
}

// TestWrite_retriesDeadlocks checks that deadlocked transactions are retried and committed
// once.
func TestWrite_retriesDeadlocks(t *testing.T) {
	t.Parallel()
	dbs := openReplicas(t, 2)
	testutil.Must(t, dbs[0].Write(t.Context(), func(tx *database.Tx) error {
		for _, id := range []string{"a", "b"} {
			if err := insertAgent(tx, id); err != nil {
				return err
			}
		}
		return nil
	}))
	var runs atomic.Int64
	var group sync.WaitGroup
	locked := []chan struct{}{make(chan struct{}), make(chan struct{})}
	for i, order := range [][]string{{"a", "b"}, {"b", "a"}} {
		group.Go(func() {
			first := true
			err := dbs[i].Write(t.Context(), func(tx *database.Tx) error {
				runs.Add(1)
				for _, id := range order {
					if err := tx.Exec("UPDATE agents SET rating_count = rating_count + 1 WHERE id = ?", id).Error; err != nil {
						return err
					}
					if first { // each has locked the row that the other needs
						first = false
						close(locked[i])
						<-locked[1-i]
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	var counts []int64
	testutil.Must(t, dbs[0].Read(t.Context()).Raw("SELECT rating_count FROM agents ORDER BY id").Scan(&counts).Error)
	if !slices.Equal(counts, []int64{2, 2}) || runs.Load() < 3 {
		t.Errorf("after %d runs of two transactions the counts are %v", runs.Load(), counts)
	}
}

// TestReplicas_heartbeat checks that processes are registered, and that a process without
// heartbeats is removed and its jobs become available.
func TestReplicas_heartbeat(t *testing.T) {
	t.Parallel()
	dbs := openReplicas(t, 3)
	registered := func() (ids []string) {
		testutil.Must(t, dbs[0].Read(t.Context()).Raw("SELECT id FROM replicas ORDER BY id").Scan(&ids).Error)
		return ids
	}
	want := []string{dbs[0].ReplicaID(), dbs[1].ReplicaID(), dbs[2].ReplicaID()}
	slices.Sort(want)
	if got := registered(); !slices.Equal(got, want) {
		t.Errorf("registered replicas are %v, want %v", got, want)
	}
	testutil.Must(t, dbs[0].Write(t.Context(), func(tx *database.Tx) error {
		return tx.Exec(`INSERT INTO replicas (id, seen_at) VALUES ('silent', 0);
			INSERT INTO river_job (kind, queue, max_attempts, args, state, attempted_by, attempt, attempted_at) VALUES
				('k', 'q', 9, '{}', 'running', ARRAY['silent'], 1, now()), ('k', 'q', 9, '{}', 'running', ARRAY['silent', '` + dbs[1].ReplicaID() + `'], 2, now())`).Error
	}))
	testutil.Eventually(t, "the silent replica to be removed", func() bool { return !slices.Contains(registered(), "silent") })
	testutil.Eventually(t, "the job of the silent replica to be released", func() bool {
		var states []string
		testutil.Must(t, dbs[0].Read(t.Context()).Raw("SELECT state FROM river_job ORDER BY id").Scan(&states).Error)
		return slices.Equal(states, []string{"available", "running"})
	})
}

// TestRead_timeout checks that a read that times out returns UNAVAILABLE, and that a
// cancelled read does not.
func TestRead_timeout(t *testing.T) {
	t.Parallel()
	db := openReplicas(t, 1)[0]
	timeoutCtx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	cancelledCtx, cancelNow := context.WithCancel(t.Context())
	cancelNow()
	var result string
	for ctx, want := range map[context.Context]models.Code{timeoutCtx: models.Unavailable, cancelledCtx: models.Internal} {
		if err := db.Read(ctx).Raw("SELECT pg_sleep(60)::text").Scan(&result).Error; models.CodeOf(err) != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestOpen_postgresErrors checks that errors of Open are one line without the password.
func TestOpen_postgresErrors(t *testing.T) {
	t.Parallel()
	foreign, newer, readOnly := services.NewPostgresDatabase(t), services.NewPostgresDatabase(t), services.NewPostgresDatabase(t)
	change := func(address string, statements ...string) {
		db, err := database.Open(t.Context(), address, slog.New(slog.DiscardHandler))
		testutil.Must(t, err)
		testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error {
			for _, statement := range statements {
				if err := tx.Exec(statement).Error; err != nil {
					return err
				}
			}
			return nil
		}))
		testutil.Must(t, db.Close())
	}
	change(foreign, "DROP TABLE transfers CASCADE")
	change(newer, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, true)")
	for address, want := range map[string]string{
		foreign: "not an AgentMarket database",
		newer:   "schema version 999 is newer than version",
		readOnly + "&default_transaction_read_only=on":                     "read only",
		"postgres://test:secret@127.0.0.1:1/market":                        "connection refused",
		"postgres://test:secret@127.0.0.1:port/market":                     "invalid port",
		strings.Replace(newer, "/test_", "/none_", 1):                      "does not exist",
		"postgres://test:secret@127.0.0.1:1,127.0.0.1:2/market?sslmode=no": "sslmode",
	} {
		db, err := database.Open(t.Context(), address, slog.New(slog.DiscardHandler))
		if err == nil {
			testutil.Must(t, db.Close())
		}
		if text := fmt.Sprint(err); !strings.Contains(text, want) || strings.Contains(text, "\n") || strings.Contains(text, "secret") {
			t.Errorf("got %s, want one line with %q", text, want)
		}
	}
}

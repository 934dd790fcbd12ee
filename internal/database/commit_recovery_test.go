package database_test

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestCommit_connectionLost: the connections of many writers break while they commit, some
// before the engine hears of it and some after. What did not happen is done again,
// what did is not, and each caller is told the truth. Once the server may have
// been another in between, it is said that nobody knows.
func TestCommit_connectionLost(t *testing.T) {
	t.Parallel()
	proxy, address := newProxy(t)
	db, err := database.Open(t.Context(), address, slog.New(slog.DiscardHandler))
	testutil.Must(t, err)
	t.Cleanup(func() { testutil.Must(t, db.Close()) })
	const made, unknown = "the change was committed", "which may have succeeded"
	var runs, hooks, kept, lost atomic.Int64
	db.ObserveCommits(func(c database.CommitStats) {
		if c.Err != nil {
			lost.Add(1)
		}
		kept.Add(int64(c.Changes))
	})
	// write inserts an event of a kind and has its connection fail at the commit,
	// which the answer to something waits for, or not.
	write := func(kind string, how connFault, waits bool, also func(*database.Tx) error) error {
		first := true
		return db.Write(t.Context(), func(tx *database.Tx) error {
			runs.Add(1)
			tx.OnCommit(func() { hooks.Add(1) })
			var port int
			var id int64
			if err := tx.QueryRow("SELECT inet_client_port()", nil, &port); err != nil {
				return err
			}
			if err := also(tx); err != nil {
				return err
			}
			if first {
				first = false
				proxy.setFault(port, how)
			}
			const insert = "INSERT INTO events (kind, created_at) VALUES (?, 0)"
			if waits {
				return tx.InsertReturning(insert+" RETURNING id", []any{kind}, &id)
			}
			return tx.ExecOne(insert, kind)
		})
	}
	nothing := func(*database.Tx) error { return nil }
	count := func(kind string) (n int64) {
		testutil.Must(t, db.Read(t.Context()).Model(&models.Event{}).Where("kind = ?", kind).Count(&n).Error)
		return n
	}
	const writers = 12
	var writing sync.WaitGroup
	for i := range writers {
		for _, row := range []struct {
			name  string
			how   connFault
			waits bool
			says  string
		}{
			{"well", noFault, false, ""},
			{"deaf", resetAfterCommit, false, ""},
			{"deaf and waiting", resetAfterCommit, true, made},
			{"mute", resetBeforeCommit, false, ""},
			{"mute and waiting", resetBeforeCommit, true, ""},
		} {
			writing.Go(func() {
				kind := fmt.Sprint(row.name, i)
				err := write(kind, row.how, row.waits, nothing)
				if (err == nil) != (row.says == "") || err != nil && (models.CodeOf(err) != models.Unavailable || !strings.Contains(err.Error(), row.says)) {
					t.Errorf("%s: got %v, want %q", kind, err, row.says)
				}
				if n := count(kind); n != 1 {
					t.Errorf("%s happened %d times", kind, n)
				}
			})
		}
	}
	writing.Wait()
	// The mute ones ran twice, and those whose answer was lost ran no hooks.
	if runs.Load() != writers*7 || hooks.Load() != writers*4 {
		t.Errorf("%d runs, %d hooks; want %d and %d", runs.Load(), hooks.Load(), writers*7, writers*4)
	}

	restart := func(tx *database.Tx) error { return tx.Exec("SELECT pg_stat_reset_shared('bgwriter')").Error } // as after a crash
	for _, how := range []connFault{resetAfterCommit, resetBeforeCommit} {
		kind := fmt.Sprint("after a crash ", how)
		if err := write(kind, how, false, restart); models.CodeOf(err) != models.Unavailable || !strings.Contains(err.Error(), unknown) {
			t.Errorf("%s: got %v, want %q", kind, err, unknown)
		}
	}
	if lost.Load() != writers+2 || kept.Load() != writers*4 {
		t.Errorf("%d commits are counted as lost and %d as kept, want %d and %d", lost.Load(), kept.Load(), writers+2, writers*4)
	}
}

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

// TestCommit_connectionLost breaks the connections of many writers during the commit,
// before or after the server receives it. Lost transactions are retried, committed
// ones are not. If the server may have restarted, the error says that the outcome is
// unknown.
func TestCommit_connectionLost(t *testing.T) {
	t.Parallel()
	proxy, address := newProxy(t)
	db, err := database.Open(t.Context(), address, slog.New(slog.DiscardHandler))
	testutil.Must(t, err)
	t.Cleanup(func() { testutil.Must(t, db.Close()) })
	const committed, unknown = "the change was committed", "which may have succeeded"
	var runs, hooks, observed, lost atomic.Int64
	db.ObserveCommits(func(c database.CommitStats) {
		if c.Err != nil {
			lost.Add(1)
		}
		observed.Add(int64(c.Changes))
	})
	// write inserts an event of a kind and breaks the connection at the commit. If
	// returning is true, the commit has a result to read.
	write := func(kind string, fault connFault, returning bool, before func(*database.Tx) error) error {
		first := true
		return db.Write(t.Context(), func(tx *database.Tx) error {
			runs.Add(1)
			tx.OnCommit(func() { hooks.Add(1) })
			var port int
			var id int64
			if err := tx.QueryRow("SELECT inet_client_port()", nil, &port); err != nil {
				return err
			}
			if err := before(tx); err != nil {
				return err
			}
			if first {
				first = false
				proxy.setFault(port, fault)
			}
			const insert = "INSERT INTO events (kind, created_at) VALUES (?, 0)"
			if returning {
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
	var group sync.WaitGroup
	for i := range writers {
		for _, row := range []struct {
			name      string
			fault     connFault
			returning bool
			wantErr   string
		}{
			{"no fault", noFault, false, ""},
			{"reset after", resetAfterCommit, false, ""},
			{"reset after, returning", resetAfterCommit, true, committed},
			{"reset before", resetBeforeCommit, false, ""},
			{"reset before, returning", resetBeforeCommit, true, ""},
		} {
			group.Go(func() {
				kind := fmt.Sprint(row.name, i)
				err := write(kind, row.fault, row.returning, nothing)
				if (err == nil) != (row.wantErr == "") || err != nil && (models.CodeOf(err) != models.Unavailable || !strings.Contains(err.Error(), row.wantErr)) {
					t.Errorf("%s: got %v, want %q", kind, err, row.wantErr)
				}
				if n := count(kind); n != 1 {
					t.Errorf("%s was committed %d times", kind, n)
				}
			})
		}
	}
	group.Wait()
	// Transactions reset before the commit ran twice. Those with a lost result ran no
	// hooks.
	if runs.Load() != writers*7 || hooks.Load() != writers*4 {
		t.Errorf("%d runs, %d hooks; want %d and %d", runs.Load(), hooks.Load(), writers*7, writers*4)
	}

	restart := func(tx *database.Tx) error { return tx.Exec("SELECT pg_stat_reset_shared('bgwriter')").Error } // as after a crash
	for _, fault := range []connFault{resetAfterCommit, resetBeforeCommit} {
		kind := fmt.Sprint("after a crash ", fault)
		if err := write(kind, fault, false, restart); models.CodeOf(err) != models.Unavailable || !strings.Contains(err.Error(), unknown) {
			t.Errorf("%s: got %v, want %q", kind, err, unknown)
		}
	}
	if lost.Load() != writers+2 || observed.Load() != writers*4 {
		t.Errorf("observed %d lost and %d successful commits, want %d and %d", lost.Load(), observed.Load(), writers+2, writers*4)
	}
}

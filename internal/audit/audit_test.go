package audit_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"agentmarket.space/server/internal/audit"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// openLog opens an audit log on a new database, with a clock.
func openLog(t *testing.T, now func() time.Time) (*audit.Log, *database.DB) {
	t.Helper()
	db, err := database.Open(t.Context(), services.NewDatabase(t), slog.New(slog.DiscardHandler))
	testutil.Must(t, err)
	t.Cleanup(func() { testutil.Must(t, db.Close()) })
	return audit.New(db, now), db
}

// record records that actor did something, in a separate transaction.
func record(t *testing.T, log *audit.Log, db *database.DB, actor string) {
	t.Helper()
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error {
		return log.Record(t.Context(), tx, actor, models.AuditAgentChanged, "object")
	}))
}

// lines formats all entries, oldest first.
func lines(t *testing.T, db *database.DB) (all []string) {
	t.Helper()
	var entries []models.AuditEntry
	testutil.Must(t, db.Read(t.Context()).Order("seq").Find(&entries).Error)
	for _, e := range entries {
		all = append(all, strings.Join([]string{e.Actor, string(e.Action), e.Object, e.Address, e.RequestID, e.Outcome, strconv.FormatInt(e.Count, 10)}, " | "))
	}
	return all
}

// requestFrom returns a context with a request from an address.
func requestFrom(ctx context.Context, address string) context.Context {
	return auth.WithRequest(ctx, &auth.Request{ID: "r", Address: address})
}

func TestRead(t *testing.T) {
	t.Parallel()
	log, db := openLog(t, time.Now)
	for _, actor := range []string{"a", "b", "a"} {
		record(t, log, db, actor)
	}
	entries, err := log.Read(requestFrom(t.Context(), "192.0.2.1"), audit.Query{Actor: "a", Limit: 1})
	testutil.Must(t, err)
	if len(entries) != 1 || entries[0].Actor != "a" || entries[0].Seq != 3 {
		t.Errorf("newest entry of a is %+v, want seq 3", entries)
	}
	entries, err = log.Read(t.Context(), audit.Query{Actor: "a", Before: 3, Limit: 10})
	testutil.Must(t, err)
	if len(entries) != 1 || entries[0].Seq != 1 {
		t.Errorf("entries of a before 3 are %+v, want seq 1", entries)
	}
	if got := lines(t, db)[3]; got != "operator | audit.read | a | 192.0.2.1 | r | OK | 1" {
		t.Errorf("the read is recorded as %q", got)
	}
}

func TestRecord(t *testing.T) {
	t.Parallel()
	t.Run("a rolled back transaction leaves no entry", func(t *testing.T) {
		t.Parallel()
		log, db := openLog(t, time.Now)
		errUndo := errors.New("undo")
		err := db.Write(t.Context(), func(tx *database.Tx) error {
			return errors.Join(log.Record(t.Context(), tx, models.OperatorActor, models.AuditSecretsReencrypted, ""), errUndo)
		})
		if !errors.Is(err, errUndo) || len(lines(t, db)) != 0 {
			t.Errorf("got error %v and entries %q", err, lines(t, db))
		}
	})
	t.Run("concurrent transactions each leave an entry", func(t *testing.T) {
		t.Parallel()
		log, db := openLog(t, time.Now)
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() { record(t, log, db, "a") })
		}
		group.Wait()
		testutil.Equal(t, "number of entries", len(lines(t, db)), 20)
	})
}

// TestAppendOnly: the database rejects updates of entries and deletes of recent ones.
// Prune deletes expired entries.
func TestAppendOnly(t *testing.T) {
	t.Parallel()
	clock := time.Date(2026, 3, 13, 12, 0, 0, 0, time.UTC)
	log, db := openLog(t, func() time.Time { return clock })
	record(t, log, db, "old")
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error {
		return tx.Create(&models.AuditEntry{CreatedAt: models.NewTime(time.Now().Add(365 * 24 * time.Hour)), Action: models.AuditRead, Outcome: models.AuditOK, Count: 1}).Error
	}))
	for _, statement := range []string{"UPDATE audit_entries SET actor = 'another'", "DELETE FROM audit_entries", "DELETE FROM audit_entries WHERE seq = 2"} {
		if err := db.Write(t.Context(), func(tx *database.Tx) error { return tx.Exec(statement).Error }); err == nil {
			t.Errorf("%s succeeded", statement)
		}
	}
	clock = clock.Add(91 * 24 * time.Hour)
	testutil.Must(t, log.Prune(t.Context(), 0))
	testutil.Equal(t, "entries without a retention", len(lines(t, db)), 2)
	testutil.Must(t, log.Prune(t.Context(), 90*24*time.Hour))
	if got := lines(t, db); len(got) != 1 || !strings.Contains(got[0], "audit.read") {
		t.Errorf("entries after 90 days are %q", got)
	}
}

// TestCountRejection: rejections are counted in memory by kind, for a bounded number of
// kinds. A failed flush loses none.
func TestCountRejection(t *testing.T) {
	t.Parallel()
	log, db := openLog(t, time.Now)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 100 {
				log.CountRejection(requestFrom(t.Context(), "192.0.2.1"), models.AuditKeyRefused, models.Unauthenticated)
			}
		})
	}
	group.Wait()
	testutil.Equal(t, "entries before the flush", len(lines(t, db)), 0)
	for range 2 {
		testutil.Must(t, log.Flush(t.Context()))
	}
	if got := lines(t, db); len(got) != 1 || got[0] != " | key.refused |  | 192.0.2.1 |  | UNAUTHENTICATED | 800" {
		t.Errorf("entries after the flush are %q", got)
	}
	for i := range 3000 {
		log.CountRejection(requestFrom(t.Context(), fmt.Sprintf("198.51.%d.%d", i/250, i%250)), models.AuditKeyRefused, models.Unauthenticated)
	}
	testutil.Must(t, log.Flush(t.Context()))
	got := lines(t, db)[1:]
	if len(got) != 1001 || got[1000] != " | key.refused |  | elsewhere |  | UNAUTHENTICATED | 2000" {
		t.Errorf("got %d entries, the last %q, want 1001 with 2000 counted together", len(got), got[len(got)-1])
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	log.CountRejection(requestFrom(t.Context(), "192.0.2.1"), models.AuditOperatorRefused, models.Unauthenticated)
	if err := log.Flush(cancelled); err == nil {
		t.Error("a flush with a cancelled context succeeded")
	}
	testutil.Must(t, log.Flush(t.Context()))
	if last := lines(t, db); !strings.Contains(last[len(last)-1], "operator.refused |  | 192.0.2.1") {
		t.Errorf("the last entry is %q, want the rejection of the failed flush", last[len(last)-1])
	}
}

// TestFlush_databaseUnavailable: while flushes fail and rejections go on, also during a
// flush, the number of kinds stays bounded and every rejection is counted.
func TestFlush_databaseUnavailable(t *testing.T) {
	t.Parallel()
	total, duringFlush := int64(0), 0
	var reject func()
	log, db := openLog(t, func() time.Time { // Flush reads the clock after it has drained the counts
		for ; duringFlush > 0; duringFlush-- {
			reject()
		}
		return time.Now()
	})
	reject = func() {
		total++
		address := fmt.Sprintf("198.%d.%d.%d", total/62_500, total/250%250, total%250)
		log.CountRejection(requestFrom(t.Context(), address), models.AuditKeyRefused, models.Unauthenticated)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for range 5 {
		reject()
		duringFlush = 800
		if err := log.Flush(cancelled); err == nil {
			t.Error("a flush with a cancelled context succeeded")
		}
	}
	testutil.Must(t, log.Flush(t.Context()))
	var entries []models.AuditEntry
	testutil.Must(t, db.Read(t.Context()).Find(&entries).Error)
	counted := int64(0)
	for _, e := range entries {
		counted += e.Count
	}
	if len(entries) != 1001 || counted != total || total < 4000 {
		t.Errorf("got %d entries for %d rejections, want 1001 for %d", len(entries), counted, total)
	}
}

package database_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/riverqueue/river"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// blockedWriter is a database whose writer runs a function that blocks, so that later
// writes queue behind it.
type blockedWriter struct {
	*database.DB
	path    string
	unblock func() // lets the blocked write continue, which inserts "first"
	group   sync.WaitGroup
}

// blockWriter opens a database with a blocked write. wantErr is the expected error of
// that write, or empty.
func blockWriter(t *testing.T, wantErr string) *blockedWriter {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.db")
	db, err := database.Open(t.Context(), path, slog.New(slog.DiscardHandler))
	testutil.Must(t, err)
	entered, leave := make(chan struct{}), make(chan struct{})
	h := &blockedWriter{DB: db, path: path, unblock: sync.OnceFunc(func() { close(leave) })}
	t.Cleanup(func() {
		h.finish()
		select {
		case <-db.Closing():
		default:
			testutil.Must(t, db.Close())
		}
	})
	h.group.Go(func() {
		wantError(t, h.Write(t.Context(), func(tx *database.Tx) error {
			close(entered)
			<-leave
			return insertAgent(tx, "first")
		}), wantErr)
	})
	<-entered
	return h
}

// queueWrite queues a write. wantErr is its expected error, or empty.
func (h *blockedWriter) queueWrite(t *testing.T, wantErr string, fn func(*database.Tx) error) {
	t.Helper()
	before := h.QueuedWrites()
	h.group.Go(func() { wantError(t, h.Write(t.Context(), fn), wantErr) })
	h.waitForQueued(t, before+1)
}

// waitForQueued waits until n writes are queued.
func (h *blockedWriter) waitForQueued(t *testing.T, n int) {
	t.Helper()
	testutil.Eventually(t, fmt.Sprintf("%d queued writes", n), func() bool { return h.QueuedWrites() >= n })
}

// finish unblocks the writer and waits for all writes.
func (h *blockedWriter) finish() {
	h.unblock()
	h.group.Wait()
}

// wantError checks that err contains want, or is nil if want is empty.
func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

// TestWrite_batch checks that queued writes share the next commit, up to MaxBatch.
func TestWrite_batch(t *testing.T) {
	t.Parallel()
	h := blockWriter(t, "")
	var visible int64
	h.queueWrite(t, "", func(tx *database.Tx) error {
		tx.OnCommit(func() {
			if err := h.Read(t.Context()).Model(&models.Agent{}).Count(&visible).Error; err != nil {
				t.Error(err)
			}
		})
		return insertAgent(tx, "second")
	})
	for i := range database.MaxBatch - 1 {
		h.queueWrite(t, "", func(tx *database.Tx) error { return insertAgent(tx, strconv.Itoa(i)) })
	}
	h.finish()
	if visible != database.MaxBatch {
		t.Errorf("the first commit made %d changes visible, want %d", visible, database.MaxBatch)
	}
	if n := len(agentIDs(t, h.DB)); n != database.MaxBatch+1 {
		t.Errorf("committed %d changes, want %d", n, database.MaxBatch+1)
	}
}

// TestWrite_isolatesFailuresInBatch checks that a failed write in a batch loses its own
// changes, hooks and jobs, and that the others are committed.
func TestWrite_isolatesFailuresInBatch(t *testing.T) {
	t.Parallel()
	h := blockWriter(t, "")
	var hooks []string
	for _, c := range []struct {
		id, wantErr string
		fail        func(*database.Tx) error
	}{
		{"before", "", func(*database.Tx) error { return nil }},
		{"failing", "it fails", func(*database.Tx) error { return errors.New("it fails") }},
		{"between", "", func(*database.Tx) error { return nil }},
		{"panicking", "panic in a transaction: it panics", func(*database.Tx) error { panic("it panics") }},
		{"twice", "duplicated key", func(tx *database.Tx) error { return insertAgent(tx, "twice") }},
		{"after", "", func(*database.Tx) error { return nil }},
	} {
		h.queueWrite(t, c.wantErr, func(tx *database.Tx) error {
			tx.OnCommit(func() { hooks = append(hooks, c.id) })
			tx.Enqueue(job{Name: c.id}, nil)
			return errors.Join(insertAgent(tx, c.id), c.fail(tx))
		})
	}
	h.finish()
	if got := agentIDs(t, h.DB); !slices.Equal(got, []string{"after", "before", "between", "first"}) {
		t.Errorf("committed %q", got)
	}
	if !slices.Equal(hooks, []string{"before", "between", "after"}) {
		t.Errorf("hooks ran %q", hooks)
	}
	var jobs []string
	testutil.Must(t, h.Read(t.Context()).Raw("SELECT json_extract(args, '$.of') FROM river_job ORDER BY id").Scan(&jobs).Error)
	if !slices.Equal(jobs, []string{"before", "between", "after"}) {
		t.Errorf("queued %q", jobs)
	}
}

// mergeableJob is a job that can hold up to three names.
type mergeableJob struct {
	Names string `json:"of"`
}

// Kind names the job.
func (mergeableJob) Kind() string { return "mergeable" }

// Merge adds the names of a later job, if they fit.
func (j mergeableJob) Merge(later river.JobArgs) (river.JobArgs, bool) {
	other, ok := later.(mergeableJob)
	j.Names += other.Names
	return j, ok && len(j.Names) <= 3
}

// TestEnqueue_mergesJobs checks that mergeable jobs of one commit are merged in order,
// without the jobs of a failed write.
func TestEnqueue_mergesJobs(t *testing.T) {
	t.Parallel()
	h := blockWriter(t, "")
	for name := range strings.SplitSeq("a,b,x,c,d", ",") {
		h.queueWrite(t, map[bool]string{true: "it fails"}[name == "x"], func(tx *database.Tx) error {
			tx.Enqueue(mergeableJob{Names: name}, nil)
			tx.Enqueue(job{Name: strings.ToUpper(name)}, nil)
			if name == "x" {
				return errors.New("it fails")
			}
			return nil
		})
	}
	h.finish()
	var jobs []string
	testutil.Must(t, h.Read(t.Context()).Raw("SELECT json_extract(args, '$.of') FROM river_job ORDER BY id").Scan(&jobs).Error)
	if want := []string{"abc", "A", "B", "C", "d", "D"}; !slices.Equal(jobs, want) {
		t.Errorf("queued %q, want %q", jobs, want)
	}
}

// TestWrite_errorWaitsForCommit checks that a write that fails because of another one in
// its batch returns after the commit of that write. A slow third write extends the
// batch.
func TestWrite_errorWaitsForCommit(t *testing.T) {
	t.Parallel()
	h := blockWriter(t, "")
	h.queueWrite(t, "", func(tx *database.Tx) error { return insertAgent(tx, "taken") })
	before := h.QueuedWrites()
	h.group.Go(func() {
		wantError(t, h.Write(t.Context(), func(tx *database.Tx) error { return insertAgent(tx, "taken") }), "duplicated key")
		if got := agentIDs(t, h.DB); !slices.Contains(got, "taken") {
			t.Errorf("duplicated key, but the committed agents are %q", got)
		}
	})
	h.waitForQueued(t, before+1)
	h.queueWrite(t, "", func(tx *database.Tx) error {
		for i := range 2000 {
			if err := insertAgent(tx, strconv.Itoa(i)); err != nil {
				return err
			}
		}
		return nil
	})
	h.finish()
}

// TestWrite_batchFails checks that all writes of a batch fail and are rolled back if the
// commit fails or the state of the transaction is unknown. The writer continues.
func TestWrite_batchFails(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ statements, wantErr string }{
		"a commit that fails": {
			"PRAGMA defer_foreign_keys = ON; INSERT INTO agent_capabilities (capability, agent_id) VALUES ('x', 'nobody')", "commit: ",
		},
		"a lost savepoint": {"RELEASE change; INSERT INTO nowhere VALUES (1)", "roll back one change: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := blockWriter(t, row.wantErr)
			var commits []database.CommitStats
			h.ObserveCommits(func(c database.CommitStats) { commits = append(commits, c) }) // the writer calls it serially
			h.queueWrite(t, row.wantErr, func(tx *database.Tx) error {
				tx.OnCommit(func() { t.Error("a hook ran without a commit") })
				tx.Enqueue(job{}, nil)
				return insertAgent(tx, "neighbour")
			})
			h.queueWrite(t, row.wantErr, func(tx *database.Tx) error {
				for statement := range strings.SplitSeq(row.statements, ";") {
					if err := tx.Exec(statement).Error; err != nil {
						return err
					}
				}
				return nil
			})
			h.finish()
			testutil.Must(t, h.Write(t.Context(), func(tx *database.Tx) error { return insertAgent(tx, "next") }))
			if got := agentIDs(t, h.DB); !slices.Equal(got, []string{"next"}) {
				t.Errorf("committed %q", got)
			}
			if len(commits) != 2 || commits[0].Err == nil || commits[0].Changes != 0 || commits[1].Err != nil || commits[1].Changes != 1 {
				t.Errorf("observed commits are %+v", commits)
			}
			var jobs int64
			if err := h.Read(t.Context()).Table("river_job").Count(&jobs).Error; err != nil || jobs != 0 {
				t.Errorf("%d jobs are queued (%v)", jobs, err)
			}
		})
	}
}

// TestWrite_cancelled checks that a queued write can be cancelled and then never starts.
// A write that has started is committed.
func TestWrite_cancelled(t *testing.T) {
	t.Parallel()
	h := blockWriter(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() {
		result <- h.Write(ctx, func(tx *database.Tx) error { return insertAgent(tx, "cancelled") })
	}()
	h.waitForQueued(t, 1)
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled write returned %v", err)
	}
	h.finish()
	startedCtx, cancel := context.WithCancel(t.Context())
	testutil.Must(t, h.Write(startedCtx, func(tx *database.Tx) error {
		cancel()
		return insertAgent(tx, "too late to cancel")
	}))
	if got := agentIDs(t, h.DB); !slices.Equal(got, []string{"first", "too late to cancel"}) {
		t.Errorf("committed %q", got)
	}
}

// TestWrite_nested checks that a Write inside a Write, which is a mistake, waits until
// its context is done and never starts.
func TestWrite_nested(t *testing.T) {
	t.Parallel()
	h := blockWriter(t, "")
	inner, cancel := context.WithCancel(t.Context())
	h.queueWrite(t, "", func(tx *database.Tx) error {
		go func() {
			h.waitForQueued(t, 1)
			cancel()
		}()
		err := h.Write(inner, func(tx *database.Tx) error { return insertAgent(tx, "inner") })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the inner write returned %v", err)
		}
		return insertAgent(tx, "outer")
	})
	h.finish()
	if got := agentIDs(t, h.DB); !slices.Equal(got, []string{"first", "outer"}) {
		t.Errorf("committed %q", got)
	}
}

// TestClose checks that Close waits for queued writes, that later writes fail, and that
// the file can be opened again.
func TestClose(t *testing.T) {
	t.Parallel()
	h := blockWriter(t, "")
	h.queueWrite(t, "", func(tx *database.Tx) error { return insertAgent(tx, "waiting") })
	closed := make(chan error)
	go func() { closed <- h.Close() }()
	<-h.Closing()
	late := func(tx *database.Tx) error { return insertAgent(tx, "late") }
	wantError(t, h.Write(t.Context(), late), "the database is closed")
	h.finish()
	testutil.Must(t, <-closed)
	wantError(t, h.Write(t.Context(), late), "the database is closed")
	if got := agentIDs(t, openDB(t, h.path)); !slices.Equal(got, []string{"first", "waiting"}) {
		t.Errorf("committed %q", got)
	}
}

// TestWrite_diskFull checks that a write to a full disk returns UNAVAILABLE, that earlier
// writes stay, and that writes succeed again when there is space.
func TestWrite_diskFull(t *testing.T) {
	t.Parallel()
	db, err := database.Open(t.Context(), filepath.Join(t.TempDir(), "a.db"), slog.New(slog.DiscardHandler))
	testutil.Must(t, err)
	defer func() { testutil.Must(t, db.Close()) }()
	testutil.Must(t, db.LimitPages(1)) // to the current size
	written := 0
	for err == nil {
		if err = db.Write(t.Context(), func(tx *database.Tx) error { return insertAgent(tx, strconv.Itoa(written)) }); err == nil {
			written++
		}
	}
	if models.CodeOf(err) != models.Unavailable || !strings.Contains(err.Error(), "disk") {
		t.Errorf("got %v, want UNAVAILABLE", err)
	}
	testutil.Must(t, db.LimitPages(1<<30))
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error { return insertAgent(tx, "again") }))
	if n := len(agentIDs(t, db)); n != written+1 {
		t.Errorf("committed %d changes, want %d", n, written+1)
	}
}

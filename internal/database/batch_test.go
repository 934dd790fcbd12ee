package database_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/riverqueue/river"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// blockedWriter is a store whose writer is in the middle of a change, so that what is
// written meanwhile gathers behind it.
type blockedWriter struct {
	*database.DB
	path    string
	unblock func() // lets the change in the middle end, which adds "first"
	group   sync.WaitGroup
}

// blockWriter returns a store whose first change is to end with an error that says
// want, without one when want is empty.
func blockWriter(t *testing.T, want string) *blockedWriter {
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
		}), want)
	})
	<-entered
	return h
}

// queueWrite has fn wait for its turn, to end with an error that says want.
func (h *blockedWriter) queueWrite(t *testing.T, want string, fn func(*database.Tx) error) {
	t.Helper()
	before := h.QueuedWrites()
	h.group.Go(func() { wantError(t, h.Write(t.Context(), fn), want) })
	h.waitForQueued(t, before+1)
}

// waitForQueued waits until n changes wait for their turn.
func (h *blockedWriter) waitForQueued(t *testing.T, n int) {
	t.Helper()
	ticker, late := time.NewTicker(time.Millisecond), time.After(20*time.Second)
	defer ticker.Stop()
	for h.QueuedWrites() < n {
		select {
		case <-ticker.C:
		case <-late:
			t.Errorf("%d changes wait, want %d", h.QueuedWrites(), n)
			return
		}
	}
}

// finish lets every change end.
func (h *blockedWriter) finish() {
	h.unblock()
	h.group.Wait()
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

// TestWrite_batch: what waits shares the next commit, up to MaxBatch.
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
		t.Errorf("the first commit brought %d changes, want %d", visible, database.MaxBatch)
	}
	if n := len(agentIDs(t, h.DB)); n != database.MaxBatch+1 {
		t.Errorf("%d changes were kept, want %d", n, database.MaxBatch+1)
	}
}

// TestWrite_isolatesFailuresInBatch: what fails in a batch takes back what it did, asked to
// be done and queued itself, and nothing else.
func TestWrite_isolatesFailuresInBatch(t *testing.T) {
	t.Parallel()
	h := blockWriter(t, "")
	var hooks []string
	for _, c := range []struct {
		id, want string
		fail     func(*database.Tx) error
	}{
		{"before", "", func(*database.Tx) error { return nil }},
		{"refused", "it is refused", func(*database.Tx) error { return errors.New("it is refused") }},
		{"between", "", func(*database.Tx) error { return nil }},
		{"broken", "panic in a transaction: it is broken", func(*database.Tx) error { panic("it is broken") }},
		{"twice", "duplicated key", func(tx *database.Tx) error { return insertAgent(tx, "twice") }},
		{"after", "", func(*database.Tx) error { return nil }},
	} {
		h.queueWrite(t, c.want, func(tx *database.Tx) error {
			tx.OnCommit(func() { hooks = append(hooks, c.id) })
			tx.Enqueue(job{Name: c.id}, nil)
			return errors.Join(insertAgent(tx, c.id), c.fail(tx))
		})
	}
	h.finish()
	if got := agentIDs(t, h.DB); !slices.Equal(got, []string{"after", "before", "between", "first"}) {
		t.Errorf("kept %q", got)
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

// mergeableJob is a job that takes in two more at most.
type mergeableJob struct {
	Names string `json:"of"`
}

// Kind names the job.
func (mergeableJob) Kind() string { return "joined" }

// Merge takes in a job whose name fits beside its own.
func (j mergeableJob) Merge(later river.JobArgs) (river.JobArgs, bool) {
	other, ok := later.(mergeableJob)
	j.Names += other.Names
	return j, ok && len(j.Names) <= 3
}

// TestEnqueue_mergesJobs: jobs of one commit that may be one job are, in their order;
// what is refused puts none in it.
func TestEnqueue_mergesJobs(t *testing.T) {
	t.Parallel()
	h := blockWriter(t, "")
	for name := range strings.SplitSeq("a,b,x,c,d", ",") {
		h.queueWrite(t, map[bool]string{true: "it is refused"}[name == "x"], func(tx *database.Tx) error {
			tx.Enqueue(mergeableJob{Names: name}, nil)
			tx.Enqueue(job{Name: strings.ToUpper(name)}, nil)
			if name == "x" {
				return errors.New("it is refused")
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

// TestWrite_errorWaitsForCommit: a change that is refused for what a neighbour did hears of
// it when that is committed, not before. The one behind it makes the batch last.
func TestWrite_errorWaitsForCommit(t *testing.T) {
	t.Parallel()
	h := blockWriter(t, "")
	h.queueWrite(t, "", func(tx *database.Tx) error { return insertAgent(tx, "taken") })
	before := h.QueuedWrites()
	h.group.Go(func() {
		wantError(t, h.Write(t.Context(), func(tx *database.Tx) error { return insertAgent(tx, "taken") }), "duplicated key")
		if got := agentIDs(t, h.DB); !slices.Contains(got, "taken") {
			t.Errorf("refused for what %q shows nothing of", got)
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

// TestWrite_batchFails: when a batch cannot be committed, or nobody can tell
// what is in it, all of it is taken back, everyone is told, and the writer goes
// on.
func TestWrite_batchFails(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ statements, says string }{
		"a commit that is refused": {
			"PRAGMA defer_foreign_keys = ON; INSERT INTO agent_capabilities (capability, agent_id) VALUES ('x', 'nobody')", "commit: ",
		},
		"a savepoint that is lost": {"RELEASE change; INSERT INTO nowhere VALUES (1)", "roll back one change: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := blockWriter(t, row.says)
			var told []database.CommitStats
			h.ObserveCommits(func(c database.CommitStats) { told = append(told, c) }) // one after another
			h.queueWrite(t, row.says, func(tx *database.Tx) error {
				tx.OnCommit(func() { t.Error("a hook ran without a commit") })
				tx.Enqueue(job{}, nil)
				return insertAgent(tx, "neighbour")
			})
			h.queueWrite(t, row.says, func(tx *database.Tx) error {
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
				t.Errorf("kept %q", got)
			}
			if len(told) != 2 || told[0].Err == nil || told[0].Changes != 0 || told[1].Err != nil || told[1].Changes != 1 {
				t.Errorf("who counts was told of %+v", told)
			}
			var jobs int64
			if err := h.Read(t.Context()).Table("river_job").Count(&jobs).Error; err != nil || jobs != 0 {
				t.Errorf("%d jobs are queued (%v)", jobs, err)
			}
		})
	}
}

// TestWrite_cancelled: a change that is cancelled while it waits is answered at
// once and never begun; one that has begun is ended as if nobody had gone.
func TestWrite_cancelled(t *testing.T) {
	t.Parallel()
	h := blockWriter(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	answer := make(chan error)
	go func() {
		answer <- h.Write(ctx, func(tx *database.Tx) error { return insertAgent(tx, "cancelled") })
	}()
	h.waitForQueued(t, 1)
	cancel()
	if err := <-answer; !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled change ended with %v", err)
	}
	h.finish()
	begun, cancel := context.WithCancel(t.Context())
	testutil.Must(t, h.Write(begun, func(tx *database.Tx) error {
		cancel()
		return insertAgent(tx, "too late to cancel")
	}))
	if got := agentIDs(t, h.DB); !slices.Equal(got, []string{"first", "too late to cancel"}) {
		t.Errorf("kept %q", got)
	}
}

// TestWrite_nested: a Write inside a Write, which is a mistake, waits behind
// itself as long as its context lets it, and is not begun.
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
			t.Errorf("the inner change ended with %v", err)
		}
		return insertAgent(tx, "outer")
	})
	h.finish()
	if got := agentIDs(t, h.DB); !slices.Equal(got, []string{"first", "outer"}) {
		t.Errorf("kept %q", got)
	}
}

// TestClose ends after what waits, refuses what comes later, and frees the file.
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
		t.Errorf("kept %q", got)
	}
}

// TestWrite_diskFull: with no room for the file what needs more is refused in words, what
// was written before stays, and there is more room later.
func TestWrite_diskFull(t *testing.T) {
	t.Parallel()
	db, err := database.Open(t.Context(), filepath.Join(t.TempDir(), "a.db"), slog.New(slog.DiscardHandler))
	testutil.Must(t, err)
	defer func() { testutil.Must(t, db.Close()) }()
	testutil.Must(t, db.LimitPages(1)) // to as many as it has
	written := 0
	for err == nil {
		if err = db.Write(t.Context(), func(tx *database.Tx) error { return insertAgent(tx, strconv.Itoa(written)) }); err == nil {
			written++
		}
	}
	if models.CodeOf(err) != models.Unavailable || !strings.Contains(err.Error(), "disk") {
		t.Errorf("it is refused with %v", err)
	}
	testutil.Must(t, db.LimitPages(1<<30))
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error { return insertAgent(tx, "again") }))
	if n := len(agentIDs(t, db)); n != written+1 {
		t.Errorf("%d changes were kept, want %d", n, written+1)
	}
}

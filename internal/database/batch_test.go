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
	"agentmarket.space/server/models"
)

// held is a store whose writer is in the middle of a change, so that what is
// written meanwhile gathers behind it.
type held struct {
	*database.DB
	path    string
	release func() // lets the change in the middle end, which adds "first"
	group   sync.WaitGroup
}

// hold returns a store whose first change is to end with an error that says
// want, without one when want is empty.
func hold(t *testing.T, want string) *held {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.db")
	db, err := database.Open(t.Context(), path, slog.New(slog.DiscardHandler))
	must(t, err)
	entered, leave := make(chan struct{}), make(chan struct{})
	h := &held{DB: db, path: path, release: sync.OnceFunc(func() { close(leave) })}
	t.Cleanup(func() {
		h.ended()
		select {
		case <-db.Closing():
		default:
			must(t, db.Close())
		}
	})
	h.group.Go(func() {
		wantError(t, h.Write(t.Context(), func(tx *database.Tx) error {
			close(entered)
			<-leave
			return add(tx, "first")
		}), want)
	})
	<-entered
	return h
}

// write has fn wait for its turn, to end with an error that says want.
func (h *held) write(t *testing.T, want string, fn func(*database.Tx) error) {
	t.Helper()
	before := h.Waiting()
	h.group.Go(func() { wantError(t, h.Write(t.Context(), fn), want) })
	h.gathered(t, before+1)
}

// gathered waits until n changes wait for their turn.
func (h *held) gathered(t *testing.T, n int) {
	t.Helper()
	ticker, late := time.NewTicker(time.Millisecond), time.After(20*time.Second)
	defer ticker.Stop()
	for h.Waiting() < n {
		select {
		case <-ticker.C:
		case <-late:
			t.Errorf("%d changes wait, want %d", h.Waiting(), n)
			return
		}
	}
}

// ended lets every change end.
func (h *held) ended() {
	h.release()
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
	h := hold(t, "")
	var visible int64
	h.write(t, "", func(tx *database.Tx) error {
		tx.OnCommit(func() {
			if err := h.Read(t.Context()).Model(&models.Agent{}).Count(&visible).Error; err != nil {
				t.Error(err)
			}
		})
		return add(tx, "second")
	})
	for i := range database.MaxBatch - 1 {
		h.write(t, "", func(tx *database.Tx) error { return add(tx, strconv.Itoa(i)) })
	}
	h.ended()
	if visible != database.MaxBatch {
		t.Errorf("the first commit brought %d changes, want %d", visible, database.MaxBatch)
	}
	if n := len(kept(t, h.DB)); n != database.MaxBatch+1 {
		t.Errorf("%d changes were kept, want %d", n, database.MaxBatch+1)
	}
}

// TestWrite_neighbours: what fails in a batch takes back what it did, asked to
// be done and queued itself, and nothing else.
func TestWrite_neighbours(t *testing.T) {
	t.Parallel()
	h := hold(t, "")
	var hooks []string
	for _, c := range []struct {
		id, want string
		fail     func(*database.Tx) error
	}{
		{"before", "", func(*database.Tx) error { return nil }},
		{"refused", "it is refused", func(*database.Tx) error { return errors.New("it is refused") }},
		{"between", "", func(*database.Tx) error { return nil }},
		{"broken", "panic in a transaction: it is broken", func(*database.Tx) error { panic("it is broken") }},
		{"twice", "duplicated key", func(tx *database.Tx) error { return add(tx, "twice") }},
		{"after", "", func(*database.Tx) error { return nil }},
	} {
		h.write(t, c.want, func(tx *database.Tx) error {
			tx.OnCommit(func() { hooks = append(hooks, c.id) })
			tx.Enqueue(job{Of: c.id}, nil)
			return errors.Join(add(tx, c.id), c.fail(tx))
		})
	}
	h.ended()
	if got := kept(t, h.DB); !slices.Equal(got, []string{"after", "before", "between", "first"}) {
		t.Errorf("kept %q", got)
	}
	if !slices.Equal(hooks, []string{"before", "between", "after"}) {
		t.Errorf("hooks ran %q", hooks)
	}
	var jobs []string
	must(t, h.Read(t.Context()).Raw("SELECT json_extract(args, '$.of') FROM river_job ORDER BY id").Scan(&jobs).Error)
	if !slices.Equal(jobs, []string{"before", "between", "after"}) {
		t.Errorf("queued %q", jobs)
	}
}

// joined is a job that takes in two more at most.
type joined struct {
	Of string `json:"of"`
}

// Kind names the job.
func (joined) Kind() string { return "joined" }

// Join takes in a job whose name fits beside its own.
func (j joined) Join(later river.JobArgs) (river.JobArgs, bool) {
	other, ok := later.(joined)
	j.Of += other.Of
	return j, ok && len(j.Of) <= 3
}

// TestEnqueue_joined: jobs of one commit that may be one job are, in their order;
// what is refused puts none in it.
func TestEnqueue_joined(t *testing.T) {
	t.Parallel()
	h := hold(t, "")
	for name := range strings.SplitSeq("a,b,x,c,d", ",") {
		h.write(t, map[bool]string{true: "it is refused"}[name == "x"], func(tx *database.Tx) error {
			tx.Enqueue(joined{Of: name}, nil)
			tx.Enqueue(job{Of: strings.ToUpper(name)}, nil)
			if name == "x" {
				return errors.New("it is refused")
			}
			return nil
		})
	}
	h.ended()
	var jobs []string
	must(t, h.Read(t.Context()).Raw("SELECT json_extract(args, '$.of') FROM river_job ORDER BY id").Scan(&jobs).Error)
	if want := []string{"abc", "A", "B", "C", "d", "D"}; !slices.Equal(jobs, want) {
		t.Errorf("queued %q, want %q", jobs, want)
	}
}

// TestWrite_refused: a change that is refused for what a neighbour did hears of
// it when that is committed, not before. The one behind it makes the batch last.
func TestWrite_refused(t *testing.T) {
	t.Parallel()
	h := hold(t, "")
	h.write(t, "", func(tx *database.Tx) error { return add(tx, "taken") })
	before := h.Waiting()
	h.group.Go(func() {
		wantError(t, h.Write(t.Context(), func(tx *database.Tx) error { return add(tx, "taken") }), "duplicated key")
		if got := kept(t, h.DB); !slices.Contains(got, "taken") {
			t.Errorf("refused for what %q shows nothing of", got)
		}
	})
	h.gathered(t, before+1)
	h.write(t, "", func(tx *database.Tx) error {
		for i := range 2000 {
			if err := add(tx, strconv.Itoa(i)); err != nil {
				return err
			}
		}
		return nil
	})
	h.ended()
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
			h := hold(t, row.says)
			var told []database.Commit
			h.OnCommits(func(c database.Commit) { told = append(told, c) }) // one after another
			h.write(t, row.says, func(tx *database.Tx) error {
				tx.OnCommit(func() { t.Error("a hook ran without a commit") })
				tx.Enqueue(job{}, nil)
				return add(tx, "neighbour")
			})
			h.write(t, row.says, func(tx *database.Tx) error {
				for statement := range strings.SplitSeq(row.statements, ";") {
					if err := tx.Exec(statement).Error; err != nil {
						return err
					}
				}
				return nil
			})
			h.ended()
			must(t, h.Write(t.Context(), func(tx *database.Tx) error { return add(tx, "next") }))
			if got := kept(t, h.DB); !slices.Equal(got, []string{"next"}) {
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
	h := hold(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	answer := make(chan error)
	go func() {
		answer <- h.Write(ctx, func(tx *database.Tx) error { return add(tx, "cancelled") })
	}()
	h.gathered(t, 1)
	cancel()
	if err := <-answer; !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled change ended with %v", err)
	}
	h.ended()
	begun, cancel := context.WithCancel(t.Context())
	must(t, h.Write(begun, func(tx *database.Tx) error {
		cancel()
		return add(tx, "too late to cancel")
	}))
	if got := kept(t, h.DB); !slices.Equal(got, []string{"first", "too late to cancel"}) {
		t.Errorf("kept %q", got)
	}
}

// TestWrite_inside: a Write inside a Write, which is a mistake, waits behind
// itself as long as its context lets it, and is not begun.
func TestWrite_inside(t *testing.T) {
	t.Parallel()
	h := hold(t, "")
	inner, cancel := context.WithCancel(t.Context())
	h.write(t, "", func(tx *database.Tx) error {
		go func() {
			h.gathered(t, 1)
			cancel()
		}()
		err := h.Write(inner, func(tx *database.Tx) error { return add(tx, "inner") })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the inner change ended with %v", err)
		}
		return add(tx, "outer")
	})
	h.ended()
	if got := kept(t, h.DB); !slices.Equal(got, []string{"first", "outer"}) {
		t.Errorf("kept %q", got)
	}
}

// TestClose ends after what waits, refuses what comes later, and frees the file.
func TestClose(t *testing.T) {
	t.Parallel()
	h := hold(t, "")
	h.write(t, "", func(tx *database.Tx) error { return add(tx, "waiting") })
	closed := make(chan error)
	go func() { closed <- h.Close() }()
	<-h.Closing()
	late := func(tx *database.Tx) error { return add(tx, "late") }
	wantError(t, h.Write(t.Context(), late), "the database is closed")
	h.ended()
	must(t, <-closed)
	wantError(t, h.Write(t.Context(), late), "the database is closed")
	if got := kept(t, open(t, h.path)); !slices.Equal(got, []string{"first", "waiting"}) {
		t.Errorf("kept %q", got)
	}
}

// TestWrite_full: with no room for the file what needs more is refused in words, what
// was written before stays, and there is more room later.
func TestWrite_full(t *testing.T) {
	t.Parallel()
	db, err := database.Open(t.Context(), filepath.Join(t.TempDir(), "a.db"), slog.New(slog.DiscardHandler))
	must(t, err)
	defer func() { must(t, db.Close()) }()
	must(t, db.LimitPages(1)) // to as many as it has
	written := 0
	for err == nil {
		if err = db.Write(t.Context(), func(tx *database.Tx) error { return add(tx, strconv.Itoa(written)) }); err == nil {
			written++
		}
	}
	if models.CodeOf(err) != models.Unavailable || !strings.Contains(err.Error(), "disk") {
		t.Errorf("it is refused with %v", err)
	}
	must(t, db.LimitPages(1<<30))
	must(t, db.Write(t.Context(), func(tx *database.Tx) error { return add(tx, "again") }))
	if n := len(kept(t, db)); n != written+1 {
		t.Errorf("%d changes were kept, want %d", n, written+1)
	}
}

package events

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// bundle is the log of a store, and its reader.
type bundle struct {
	*Log
	t    *testing.T
	path string
	stop func() // ends the reader and closes the store
}

// open makes an empty log that ends with the test.
func open(t *testing.T) *bundle {
	t.Helper()
	return openAt(t, services.NewDatabase(t))
}

// openAt opens the log in a file.
func openAt(t *testing.T, path string) *bundle {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	db, err := database.Open(t.Context(), path, logger)
	testutil.Must(t, err)
	log, err := Open(t.Context(), db, logger)
	testutil.Must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		log.Follow(ctx)
	}()
	b := &bundle{Log: log, t: t, path: path}
	b.stop = func() {
		b.stop = func() {}
		cancel()
		<-ended
		testutil.Must(t, db.Close())
	}
	t.Cleanup(func() { b.stop() })
	return b
}

// newNamedEvent is an event that can be told from others.
func newNamedEvent(name string) *models.Event {
	return &models.Event{Kind: models.WalletChanged, AgentID: new("agent"), TransferID: &name}
}

// append writes so many events in one transaction and returns the last cursor.
func (b *bundle) append(n int) int64 {
	b.t.Helper()
	var event *models.Event
	testutil.Must(b.t, b.db.Write(b.t.Context(), func(tx *database.Tx) error {
		for i := range n {
			event = newNamedEvent(strconv.Itoa(i))
			if err := b.Append(tx, event); err != nil {
				return err
			}
		}
		return nil
	}))
	_, err := b.db.AssignCursors(b.t.Context(), true)
	testutil.Must(b.t, err)
	var last int64
	testutil.Must(b.t, b.db.Read(b.t.Context()).Raw("SELECT seq FROM events WHERE id = ?", event.ID).Scan(&last).Error)
	return last
}

// waitDispatched waits until live subscribers were offered everything up to a cursor.
func (b *bundle) waitDispatched(cursor int64) {
	b.t.Helper()
	testutil.Eventually(b.t, fmt.Sprintf("event %d to be handed out", cursor), func() bool { return b.Head() >= cursor })
}

// reader is a client of the log: it reads, and when it is cut off for being slow
// it subscribes again after the last cursor seen.
type reader struct {
	t      *testing.T
	log    *Log
	cursor int64
	sub    *Subscription
	cancel context.CancelFunc
}

// newReader opens a reader after a cursor.
func (b *bundle) newReader(after int64) *reader {
	r := &reader{t: b.t, log: b.Log, cursor: after}
	r.subscribe()
	return r
}

func (r *reader) subscribe() {
	ctx, cancel := context.WithCancel(r.t.Context())
	r.cancel = cancel
	r.sub = r.log.Subscribe(ctx, acceptAll, &r.cursor)
}

// take returns the next n events.
func (r *reader) take(n int) []models.Event {
	r.t.Helper()
	var got []models.Event
	for len(got) < n {
		event, ok := mustReceive(r.t, r.sub.C)
		if !ok {
			wantCode(r.t, r.sub.Err(), models.SlowConsumer)
			r.cancel()
			r.subscribe()
			continue
		}
		r.cursor = event.Seq
		got = append(got, *event)
	}
	return got
}

// readAll reads a subscription until it is closed.
func readAll(t *testing.T, sub *Subscription) []models.Event {
	t.Helper()
	var got []models.Event
	for {
		event, ok := mustReceive(t, sub.C)
		if !ok {
			return got
		}
		got = append(got, *event)
	}
}

func acceptAll(*models.Event) bool { return true }

// wantCursors wants the cursors from one to another, each once and in order.
func wantCursors(t *testing.T, got []models.Event, from, to int64) {
	t.Helper()
	if int64(len(got)) != to-from+1 {
		t.Errorf("got %d events, want those from %d to %d", len(got), from, to)
		return
	}
	for i := range got {
		if want := from + int64(i); got[i].Seq != want {
			t.Errorf("event %d follows %d, want %d", got[i].Seq, want-1, want)
			return
		}
	}
}

func wantCode(t *testing.T, err error, want models.Code) {
	t.Helper()
	if err == nil || models.CodeOf(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// mustReceive receives what must come; ok is false when the channel was closed.
func mustReceive[T any](t *testing.T, from <-chan T) (value T, ok bool) {
	t.Helper()
	select {
	case value, ok = <-from:
		return value, ok
	case <-time.After(testutil.Timeout):
		t.Fatalf("nothing came within %s", testutil.Timeout)
		return value, false
	}
}

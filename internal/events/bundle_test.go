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

// bundle is the log of a database, with Follow running.
type bundle struct {
	*Log
	t    *testing.T
	path string

	stopFollow func()
	stop       func() // stops Follow and closes the database
}

// open opens an empty log. The test's end closes it.
func open(t *testing.T) *bundle {
	t.Helper()
	return openAt(t, services.NewDatabase(t))
}

// openAt opens the log of the database at path.
func openAt(t *testing.T, path string) *bundle {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	db, err := database.Open(t.Context(), path, logger)
	testutil.Must(t, err)
	log, err := Open(t.Context(), db, logger)
	testutil.Must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		log.Follow(ctx)
	}()
	b := &bundle{Log: log, t: t, path: path}
	b.stopFollow = func() {
		cancel()
		<-done
	}
	b.stop = func() {
		b.stop = func() {}
		b.stopFollow()
		testutil.Must(t, db.Close())
	}
	t.Cleanup(func() { b.stop() })
	return b
}

// newNamedEvent returns an event with a name.
func newNamedEvent(name string) *models.Event {
	return &models.Event{Kind: models.WalletChanged, AgentID: new("agent"), TransferID: &name}
}

// append writes n events in one transaction and returns the last cursor.
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

// waitDispatched waits until the event with a cursor is dispatched.
func (b *bundle) waitDispatched(cursor int64) {
	b.t.Helper()
	testutil.Eventually(b.t, fmt.Sprintf("event %d to be dispatched", cursor), func() bool { return b.Head() >= cursor })
}

// subscription delivers the events of a feed to a channel.
type subscription struct {
	C   <-chan *models.Event
	err error // of the feed; read it after C is closed
}

// subscribe opens a feed of all events that pass filter. It ends with ctx.
func (b *bundle) subscribe(ctx context.Context, filter Filter, after *int64) *subscription {
	out, woken := make(chan *models.Event), make(chan struct{}, 1)
	s := &subscription{C: out}
	feed := b.OpenFeed(Interest{[]Topic{AllEventsTopic()}, filter}, after, func(*models.Event) { woken <- struct{}{} })
	go func() {
		defer close(out)
		defer feed.Close()
		s.err = forward(ctx, feed, out, woken)
	}()
	return s
}

// forward sends the events of a feed to out. It returns the error of the feed, or nil
// when ctx is done.
func forward(ctx context.Context, feed *Feed, out chan<- *models.Event, woken <-chan struct{}) error {
	for ctx.Err() == nil {
		event, err := feed.Next(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			return err
		case event != nil:
			select {
			case out <- event:
			case <-ctx.Done():
			}
		default:
			select {
			case <-woken:
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// reader is a client of the log. If its subscription ends with SLOW_CONSUMER, it
// subscribes again after the last cursor.
type reader struct {
	*bundle

	cursor int64
	sub    *subscription
	cancel context.CancelFunc
}

// newReader returns a reader that starts after a cursor.
func (b *bundle) newReader(after int64) *reader {
	r := &reader{bundle: b, cursor: after}
	r.resubscribe()
	return r
}

// resubscribe subscribes after the last cursor.
func (r *reader) resubscribe() {
	ctx, cancel := context.WithCancel(r.t.Context())
	r.cancel = cancel
	r.sub = r.subscribe(ctx, acceptAll, &r.cursor)
}

// take returns the next n events.
func (r *reader) take(n int) []models.Event {
	r.t.Helper()
	var got []models.Event
	for len(got) < n {
		event, ok := mustReceive(r.t, r.sub.C)
		if !ok {
			wantCode(r.t, r.sub.err, models.SlowConsumer)
			r.cancel()
			r.resubscribe()
			continue
		}
		r.cursor = event.Seq
		got = append(got, *event)
	}
	return got
}

// readAll reads a subscription until it is closed.
func readAll(t *testing.T, sub *subscription) []models.Event {
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

// wantCursors checks that got holds the cursors from to to, each once and in order.
func wantCursors(t *testing.T, got []models.Event, from, to int64) {
	t.Helper()
	if int64(len(got)) != to-from+1 {
		t.Errorf("got %d events, want %d to %d", len(got), from, to)
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

// mustReceive receives a value. ok is false if the channel is closed.
func mustReceive[T any](t *testing.T, from <-chan T) (value T, ok bool) {
	t.Helper()
	select {
	case value, ok = <-from:
		return value, ok
	case <-time.After(testutil.Timeout):
		t.Fatalf("received nothing within %s", testutil.Timeout)
		return value, false
	}
}

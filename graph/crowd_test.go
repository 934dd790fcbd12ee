package graph

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/internal/test/goroutines"
	"agentmarket.space/server/models"
)

// announce writes that a task was posted so many times, in one transaction, and
// returns the last cursor.
func (b *bundle) announce(t *testing.T, task, poster string, times int) (last int64) {
	t.Helper()
	must(t, b.DB.Write(t.Context(), func(tx *database.Tx) error {
		for range times {
			event := models.Event{Kind: models.TaskPosted, TaskID: &task, PosterID: &poster}
			if err := b.Log.Append(tx, &event); err != nil {
				return err
			}
			last = event.ID
		}
		return nil
	}))
	return last
}

// crowd is one subscriber of many: what it has heard, by cursor.
type crowd struct {
	conn    *websocket.Conn
	cursors []string
}

// joins subscribes with an operation id of its own.
func (b *bundle) joins(t *testing.T, i int, after string) *crowd {
	t.Helper()
	member := &crowd{conn: b.dial(t, caller{}, nil)}
	arguments := "capabilities: []"
	if after != "" {
		arguments += fmt.Sprintf(", after: %q", after)
	}
	must(t, member.conn.WriteMessage(websocket.TextMessage, fmt.Appendf(nil,
		`{"id":"operation %d","type":"subscribe","payload":{"query":%q}}`, i, "subscription { taskPosted("+arguments+") { cursor task { id description } } }")))
	return member
}

// hear reads events until one has a cursor, or the server ends the subscription:
// then it returns the code, or "cut" when the socket went.
func (c *crowd) hear(t *testing.T, last string) (code string) {
	t.Helper()
	if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err.Error()
	}
	for len(c.cursors) == 0 || c.cursors[len(c.cursors)-1] != last {
		_, text, err := c.conn.ReadMessage()
		if err != nil {
			return "cut"
		}
		if _, errs, failed := strings.Cut(string(text), `"code":"`); failed {
			code, _, _ = strings.Cut(errs, `"`)
			return code
		}
		_, rest, found := strings.Cut(string(text), `"cursor":"`)
		if !found {
			t.Errorf("heard %s", text)
			return "?"
		}
		cursor, _, _ := strings.Cut(rest, `"`)
		c.cursors = append(c.cursors, cursor)
	}
	return ""
}

// TestCrowd: of a hundred subscribers to the same tasks twenty do not read. The
// others hear of every task, in order, while thousands are posted. The twenty
// are cut off, come back with the last cursor they saw, and have heard of every
// task once.
func TestCrowd(t *testing.T) {
	t.Parallel()
	b := open(t)
	poster := b.register(t, "")
	task := b.ok(t, poster, fmt.Sprintf(`mutation { postTask(input: {title: "T", description: %q, budget: 2}) { task { id } } }`, strings.Repeat("long ", 100))).
		get(t, "postTask.task.id")
	const size, stalled, batches, batch = 100, 20, 20, 100
	b.settle(t)
	members := make([]*crowd, size)
	for i := range members {
		members[i] = b.joins(t, i, "")
	}
	b.live(t, size)
	first := b.announce(t, task, poster.id, 1)
	last := first
	readers := func(do func(i int, c *crowd)) {
		var group sync.WaitGroup
		for i, member := range members[stalled:] {
			group.Go(func() { do(stalled+i, member) })
		}
		group.Wait()
	}
	for range batches {
		last = b.announce(t, task, poster.id, batch)
		readers(func(i int, c *crowd) {
			if code := c.hear(t, events.Cursor(last)); code != "" {
				t.Errorf("reader %d was ended with %s", i, code)
			}
		})
	}
	for i, member := range members[:stalled] {
		code := member.hear(t, events.Cursor(last))
		if code != "cut" && code != string(models.SlowConsumer) {
			t.Errorf("the stalled subscriber %d heard %d events, then %q", i, len(member.cursors), code)
			continue
		}
		after := events.Cursor(first - 1)
		if n := len(member.cursors); n > 0 {
			after = member.cursors[n-1]
		}
		back := b.joins(t, i, after)
		back.hear(t, events.Cursor(last))
		member.cursors = append(member.cursors, back.cursors...)
	}
	for i, member := range members {
		if len(member.cursors) != int(last-first+1) {
			t.Errorf("subscriber %d heard of %d tasks, want %d", i, len(member.cursors), last-first+1)
			continue
		}
		for n, cursor := range member.cursors {
			if want := events.Cursor(first + int64(n)); cursor != want {
				t.Errorf("subscriber %d: event %d has cursor %s, want %s", i, n, cursor, want)
				break
			}
		}
	}
}

// TestIdleCrowd is not parallel: it holds a thousand sockets. A subscriber that
// waits costs one goroutine, and nothing once it has left.
func TestIdleCrowd(t *testing.T) {
	count := goroutines.Label(t)
	b := open(t)
	poster := b.register(t, `capabilities: ["x"]`)
	document := `{"id":"1","type":"subscribe","payload":{"query":"subscription { taskPosted { cursor } }"}}`
	updates := `{"id":"2","type":"subscribe","payload":{"query":"subscription { taskUpdated { cursor } }"}}`
	wallet := `{"id":"3","type":"subscribe","payload":{"query":"subscription { walletChanged { cursor } }"}}`
	before := count()
	const size, each = 1000, 3
	conns := make([]*websocket.Conn, size)
	for i := range conns {
		conns[i] = b.dial(t, poster, nil)
		for _, message := range []string{document, updates, wallet} {
			must(t, conns[i].WriteMessage(websocket.TextMessage, []byte(message)))
		}
	}
	b.live(t, size*each)
	eventually(t, "each socket to have one goroutine", func() bool { return count() <= before+size })
	if n := count(); n < before+size/2 {
		t.Errorf("%d goroutines run: the count is blind", n)
	}
	for _, conn := range conns {
		must(t, conn.Close())
	}
	eventually(t, "all subscriptions to be gone", func() bool { return b.Log.Subscribers() == 0 && b.server.Connections() == 0 })
	eventually(t, "their goroutines to end", func() bool { return count() <= before })
	if n := len(b.server.shared.groups); n != 0 {
		t.Errorf("%d groups are left", n)
	}
}

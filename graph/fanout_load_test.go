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
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// appendTaskPosted appends n TASK_POSTED events for a task in one transaction and returns
// the last cursor.
func (b *bundle) appendTaskPosted(t *testing.T, task, poster string, n int) (last int64) {
	t.Helper()
	testutil.Must(t, b.DB.Write(t.Context(), func(tx *database.Tx) error {
		for range n {
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

// crowdMember is one of many subscribers, with the cursors of its events.
type crowdMember struct {
	conn    *websocket.Conn
	cursors []string
}

// joinCrowd subscribes with a distinct operation id.
func (b *bundle) joinCrowd(t *testing.T, i int, after string) *crowdMember {
	t.Helper()
	member := &crowdMember{conn: b.dialWebSocket(t, caller{}, nil)}
	arguments := "capabilities: []"
	if after != "" {
		arguments += fmt.Sprintf(", after: %q", after)
	}
	testutil.Must(t, member.conn.WriteMessage(websocket.TextMessage, fmt.Appendf(nil,
		`{"id":"operation %d","type":"subscribe","payload":{"query":%q}}`, i, "subscription { taskPosted("+arguments+") { cursor task { id description } } }")))
	return member
}

// readUntil reads events up to a cursor. If the server ends the subscription first, it
// returns the code, or "cut" if the socket was closed.
func (c *crowdMember) readUntil(t *testing.T, last string) (code string) {
	t.Helper()
	if err := c.conn.SetReadDeadline(time.Now().Add(testutil.Timeout)); err != nil {
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
			t.Errorf("got %s", text)
			return "?"
		}
		cursor, _, _ := strings.Cut(rest, `"`)
		c.cursors = append(c.cursors, cursor)
	}
	return ""
}

// TestFanout_slowReaders checks a hundred subscribers of which twenty do not read. The
// others get thousands of events in order. The twenty are closed, resume from their last
// cursor, and in the end have every event once.
func TestFanout_slowReaders(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	poster := b.registerAgent(t, "")
	task := b.mustQuery(t, poster, fmt.Sprintf(`mutation { postTask(input: {title: "T", description: %q, budget: 2}) { task { id } } }`, strings.Repeat("long ", 100))).
		get(t, "postTask.task.id")
	const size, stalled, batches, batch = 100, 20, 20, 100
	b.waitForEventLog(t)
	members := make([]*crowdMember, size)
	for i := range members {
		members[i] = b.joinCrowd(t, i, "")
	}
	b.waitForSubscriptions(t, size)
	first := b.appendTaskPosted(t, task, poster.id, 1)
	last := first
	readers := func(do func(i int, c *crowdMember)) {
		var group sync.WaitGroup
		for i, member := range members[stalled:] {
			group.Go(func() { do(stalled+i, member) })
		}
		group.Wait()
	}
	for range batches {
		last = b.appendTaskPosted(t, task, poster.id, batch)
		readers(func(i int, c *crowdMember) {
			if code := c.readUntil(t, events.Cursor(last)); code != "" {
				t.Errorf("reader %d was closed with %s", i, code)
			}
		})
	}
	for i, member := range members[:stalled] {
		code := member.readUntil(t, events.Cursor(last))
		if code != "cut" && code != string(models.SlowConsumer) {
			t.Errorf("stalled subscriber %d got %d events, then %q", i, len(member.cursors), code)
			continue
		}
		after := events.Cursor(first - 1)
		if n := len(member.cursors); n > 0 {
			after = member.cursors[n-1]
		}
		resumed := b.joinCrowd(t, i, after)
		resumed.readUntil(t, events.Cursor(last))
		member.cursors = append(member.cursors, resumed.cursors...)
	}
	for i, member := range members {
		if len(member.cursors) != int(last-first+1) {
			t.Errorf("subscriber %d got %d events, want %d", i, len(member.cursors), last-first+1)
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

// TestFanout_idleGoroutines checks that an idle socket has one goroutine for all its
// subscriptions, and none after it is closed. It is not parallel: it opens a thousand
// sockets.
func TestFanout_idleGoroutines(t *testing.T) {
	count := goroutines.Counter(t)
	b := newBundle(t)
	poster := b.registerAgent(t, `capabilities: ["x"]`)
	document := `{"id":"1","type":"subscribe","payload":{"query":"subscription { taskPosted { cursor } }"}}`
	updates := `{"id":"2","type":"subscribe","payload":{"query":"subscription { taskUpdated { cursor } }"}}`
	wallet := `{"id":"3","type":"subscribe","payload":{"query":"subscription { walletChanged { cursor } }"}}`
	before := count()
	const size, each = 1000, 3
	conns := make([]*websocket.Conn, size)
	for i := range conns {
		conns[i] = b.dialWebSocket(t, poster, nil)
		for _, message := range []string{document, updates, wallet} {
			testutil.Must(t, conns[i].WriteMessage(websocket.TextMessage, []byte(message)))
		}
	}
	b.waitForSubscriptions(t, size*each)
	testutil.Eventually(t, "each socket to have one goroutine", func() bool { return count() <= before+size })
	if n := count(); n < before+size/2 {
		t.Errorf("only %d goroutines: the counter misses them", n)
	}
	for _, conn := range conns {
		testutil.Must(t, conn.Close())
	}
	testutil.Eventually(t, "all subscriptions to end", func() bool { return b.Log.Subscribers() == 0 && b.server.Connections() == 0 })
	testutil.Eventually(t, "their goroutines to end", func() bool { return count() <= before })
}

package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/internal/test/trust/trusttest"
)

// Documented limits for subscribers.
const (
	maxDeliveryP99      = 250 * time.Millisecond
	maxCutOffTime       = 10 * time.Second // until a slow subscriber is disconnected
	maxFanOutTime       = 2 * time.Second  // until ten thousand subscribers have an event
	maxBytesPerSocket   = 40 << 10         // bytes of server memory for an idle WebSocket
	narrowReceiveBuffer = 2 << 10          // of a slow client
)

// TestSlowConsumers is not parallel because it measures latency. Of a hundred subscribers
// ten read nothing and ten read a byte a second, while 200 tasks are posted a second. The
// others receive each event soon, and the twenty are disconnected and leave nothing behind.
func TestSlowConsumers(t *testing.T) {
	trusttest.SkipUnlessTrust(t)
	const readers, slow, pace = 80, 20, 200
	posts := trusttest.Scale(0, 6*pace, 30*pace)
	server := testserver.Start(t, fmt.Sprintf("AGENTMARKET_STARTING_CREDITS=%d", startCredits))
	poster := server.Register("Poster", nil)
	base := peakMetric(t, server, "go_goroutines")
	h := &latencyRecorder{postedAt: make([]atomic.Int64, posts), start: time.Now()}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var reading sync.WaitGroup
	for i := range slow {
		conn := h.subscribe(t, server, true)
		if i%2 == 0 {
			reading.Go(func() { readSlowly(ctx, conn.NetConn()) })
		}
	}
	for range readers {
		conn := h.subscribe(t, server, false)
		reading.Go(func() { h.recordEvents(ctx, conn) })
	}
	testutil.Eventually(t, "all subscriptions", func() bool { return readMetric(t, server, "agentmarket_subscriptions") == readers+slow })

	var disconnectedAt atomic.Int64 // when the slow subscribers were disconnected
	reading.Go(func() {
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for ctx.Err() == nil && disconnectedAt.Load() == 0 {
			if readMetric(t, server, "agentmarket_subscriptions") == readers {
				disconnectedAt.Store(int64(time.Since(h.start)))
			}
			<-ticker.C
		}
	})
	h.start = time.Now()
	h.postTasks(t, server, poster, pace, strings.Repeat("long ", 200))
	testutil.Eventually(t, "all readers to receive all events", func() bool { return int(h.received.Load()) == readers*posts })
	testutil.Eventually(t, "the slow subscribers to be disconnected", func() bool { return disconnectedAt.Load() != 0 })
	cancel()
	reading.Wait()
	server.CloseIdleConnections()
	testutil.Eventually(t, "their goroutines to end", func() bool { return readMetric(t, server, "go_goroutines") <= base+5 })
	p99, cut := h.percentile(99), time.Duration(disconnectedAt.Load())
	if p99 >= maxDeliveryP99 || cut >= maxCutOffTime {
		t.Errorf("p99 of %d deliveries is %s, want less than %s; slow subscribers were disconnected after %s, want less than %s", readers*posts, p99, maxDeliveryP99, cut, maxCutOffTime)
	}
	server.Verify()
	trusttest.Report(t, "slow", "%d deliveries to %d readers with %d slow ones: p99 %s; the slow ones disconnected after %s; no goroutines left",
		readers*posts, readers, slow, p99.Round(time.Millisecond), cut.Round(100*time.Millisecond))
}

// TestIdleSockets is not parallel because it measures latency. Ten thousand WebSockets wait
// for tasks, and each receives the first one.
func TestIdleSockets(t *testing.T) {
	trusttest.SkipUnlessTrust(t)
	const sockets = 10_000 // the maximum for one address
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < sockets+500 {
		t.Fatalf("the limit of open files is %d, want %d (%v)", limit.Cur, sockets+500, err)
	}
	server := testserver.Start(t, fmt.Sprintf("AGENTMARKET_STARTING_CREDITS=%d", startCredits))
	poster := server.Register("Poster", nil)
	before := readMetric(t, server, "process_resident_memory_bytes")
	h := &latencyRecorder{postedAt: make([]atomic.Int64, 1), start: time.Now()}
	conns := make([]*websocket.Conn, sockets)
	var opening sync.WaitGroup
	for worker := range 16 {
		opening.Go(func() {
			for i := worker; i < sockets && !t.Failed(); i += 16 {
				conns[i] = h.subscribe(t, server, false)
			}
		})
	}
	opening.Wait()
	if t.Failed() {
		return
	}
	testutil.Eventually(t, "all subscriptions", func() bool { return readMetric(t, server, "agentmarket_subscriptions") == sockets })
	each := int(readMetric(t, server, "process_resident_memory_bytes")-before) / sockets

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var reading sync.WaitGroup
	for _, conn := range conns {
		reading.Go(func() { h.recordEvents(ctx, conn) })
	}
	h.start = time.Now()
	h.postTasks(t, server, poster, 1, "D")
	testutil.Eventually(t, "all sockets to receive the task", func() bool { return h.received.Load() == sockets })
	cancel()
	reading.Wait()
	last := h.percentile(100)
	if each >= maxBytesPerSocket || last >= maxFanOutTime {
		t.Errorf("a WebSocket takes %d bytes, want less than %d; the last receives the event after %s, want less than %s", each, maxBytesPerSocket, last, maxFanOutTime)
	}
	trusttest.Report(t, "sockets", "%d WebSockets, %.1f KiB of server memory each; the last receives an event after %s", sockets, float64(each)/1024, last.Round(time.Millisecond))
}

// latencyRecorder records when tasks were posted and how long events latency to arrive.
type latencyRecorder struct {
	start    time.Time
	postedAt []atomic.Int64 // since start, by task number
	received atomic.Int64

	mu        sync.Mutex
	latencies []time.Duration
}

// subscribe opens a WebSocket that receives every task. A narrow one has a small receive
// buffer, so that the sender soon blocks; on loopback the default is megabytes.
func (h *latencyRecorder) subscribe(t *testing.T, server *testserver.Server, narrow bool) *websocket.Conn {
	t.Helper()
	dialer := websocket.Dialer{Subprotocols: []string{"graphql-transport-ws"}, ReadBufferSize: 1 << 10, WriteBufferSize: 1 << 10}
	if narrow {
		dialer.NetDialContext = (&net.Dialer{Control: func(_, _ string, conn syscall.RawConn) (err error) {
			return errors.Join(conn.Control(func(fd uintptr) {
				err = errors.Join(syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, narrowReceiveBuffer),
					syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 536)) // short segments keep the sender's buffer small
			}), err)
		}}).DialContext
	}
	conn, response, err := dialer.DialContext(t.Context(), strings.Replace(server.URL, "http", "ws", 1)+"/graphql", nil)
	if err != nil {
		t.Error(err)
		return nil
	}
	_ = response.Body.Close() // the connection is the body
	t.Cleanup(func() { _ = conn.Close() })
	for _, message := range []string{
		`{"type":"connection_init"}`,
		`{"id":"1","type":"subscribe","payload":{"query":"subscription { taskPosted(capabilities: []) { task { title description } } }"}}`,
	} {
		if err := conn.WriteMessage(websocket.TextMessage, []byte(message)); err != nil {
			t.Error(err)
		}
	}
	return conn
}

// recordEvents records the latency of events until ctx is done.
func (h *latencyRecorder) recordEvents(ctx context.Context, conn *websocket.Conn) {
	stopWatching := context.AfterFunc(ctx, func() { _ = conn.Close() }) // unblocks the read
	defer stopWatching()
	title := []byte(`"title":"number `)
	for {
		_, text, err := conn.ReadMessage()
		if err != nil {
			return
		}
		_, rest, found := bytes.Cut(text, title)
		digits, _, _ := bytes.Cut(rest, []byte(`"`))
		n, err := strconv.Atoi(string(digits))
		if !found || err != nil {
			continue // connection_ack or ping
		}
		latency := time.Since(h.start) - time.Duration(h.postedAt[n].Load())
		h.mu.Lock()
		h.latencies = append(h.latencies, latency)
		h.mu.Unlock()
		h.received.Add(1)
	}
}

// postTasks posts the tasks at a fixed rate, whether or not earlier posts have returned.
func (h *latencyRecorder) postTasks(t *testing.T, server *testserver.Server, poster testserver.Agent, pace int, description string) {
	t.Helper()
	ticker := time.NewTicker(time.Second / time.Duration(pace))
	defer ticker.Stop()
	var posting sync.WaitGroup
	for n := range h.postedAt {
		<-ticker.C
		posting.Go(func() {
			h.postedAt[n].Store(int64(time.Since(h.start)))
			body := fmt.Sprintf(`{"title":"number %d","description":%q,"budget":2}`, n, description)
			if status, text := server.Do(http.MethodPost, "/api/tasks", poster.Key, body); status != http.StatusOK {
				t.Errorf("post: %d %s", status, text)
			}
		})
	}
	posting.Wait()
}

// percentile returns a percentile of the latencies, from the request of the post to the
// last byte of the event.
func (h *latencyRecorder) percentile(percent int) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	slices.Sort(h.latencies)
	return h.latencies[(len(h.latencies)-1)*percent/100]
}

// readSlowly reads a byte a second until ctx is done or the connection is closed.
func readSlowly(ctx context.Context, conn net.Conn) {
	second := time.NewTicker(time.Second)
	defer second.Stop()
	stopWatching := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stopWatching()
	for ctx.Err() == nil {
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			return
		}
		select {
		case <-second.C:
		case <-ctx.Done():
		}
	}
}

// peakMetric returns the maximum of a metric over six seconds, until all parts of the job
// queue run.
func peakMetric(t *testing.T, server *testserver.Server, name string) (value float64) {
	t.Helper()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for start := time.Now(); time.Since(start) < 6*time.Second; <-ticker.C {
		value = max(value, readMetric(t, server, name))
	}
	return value
}

// readMetric reads a metric of the server.
func readMetric(t *testing.T, server *testserver.Server, name string) float64 {
	t.Helper()
	_, text := server.Do(http.MethodGet, "/metrics", "", "")
	found := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(text)
	if found == nil {
		t.Errorf("no metric %s", name)
		return 0
	}
	value, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	return value
}

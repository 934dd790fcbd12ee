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

// What is promised to those who listen.
const (
	maxDeliveryP99      = 250 * time.Millisecond // of 100 deliveries 99 take less than this
	maxCutOffTime       = 10 * time.Second       // after so long nobody is waited for
	maxFanOutTime       = 2 * time.Second        // a post reaches ten thousand in less than this
	maxBytesPerSocket   = 40 << 10               // bytes of the server for a socket that waits
	narrowReceiveBuffer = 2 << 10                // of a client that takes little at once
)

// TestSlowConsumers is not parallel: it times what is heard. Of a hundred
// subscribers ten read nothing and ten a byte a second, while 200 tasks are posted
// every second. The others hear of each soon, the twenty are cut off, and nothing
// of them stays.
func TestSlowConsumers(t *testing.T) {
	trusttest.SkipUnlessTrust(t)
	const readers, slow, pace = 80, 20, 200
	posts := trusttest.Scale(0, 6*pace, 30*pace)
	server := testserver.Start(t, fmt.Sprintf("AGENTMARKET_STARTING_CREDITS=%d", startCredits))
	poster := server.Register("Poster", nil)
	base := peakMetric(t, server, "go_goroutines")
	h := &latencyRecorder{postedAt: make([]atomic.Int64, posts), start: time.Now()}
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
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
	testutil.Eventually(t, "all to listen", func() bool { return readMetric(t, server, "agentmarket_subscriptions") == readers+slow })

	var gone atomic.Int64 // when the slow ones were cut off
	reading.Go(func() {
		looks := time.NewTicker(100 * time.Millisecond)
		defer looks.Stop()
		for ctx.Err() == nil && gone.Load() == 0 {
			if readMetric(t, server, "agentmarket_subscriptions") == readers {
				gone.Store(int64(time.Since(h.start)))
			}
			<-looks.C
		}
	})
	h.start = time.Now()
	h.postTasks(t, server, poster, pace, strings.Repeat("long ", 200))
	testutil.Eventually(t, "all readers to hear of all", func() bool { return int(h.received.Load()) == readers*posts })
	testutil.Eventually(t, "the slow ones to be cut off", func() bool { return gone.Load() != 0 })
	hangUp()
	reading.Wait()
	server.CloseIdleConnections()
	testutil.Eventually(t, "nothing of them to be left", func() bool { return readMetric(t, server, "go_goroutines") <= base+5 })
	p99, cut := h.percentile(99), time.Duration(gone.Load())
	if p99 >= maxDeliveryP99 || cut >= maxCutOffTime {
		t.Errorf("99 %% of %d deliveries took up to %s, want less than %s; the slow were cut off after %s, want less than %s", readers*posts, p99, maxDeliveryP99, cut, maxCutOffTime)
	}
	server.Verify()
	trusttest.Report(t, "slow", "%d deliveries to %d readers beside %d slow ones: p99 %s; the slow cut off after %s; goroutines back to base",
		readers*posts, readers, slow, p99.Round(time.Millisecond), cut.Round(100*time.Millisecond))
}

// TestIdleSockets is not parallel: it times what is heard. Ten thousand sockets
// wait for tasks, and each hears of the first one.
func TestIdleSockets(t *testing.T) {
	trusttest.SkipUnlessTrust(t)
	const sockets = 10_000 // as many as one address may have
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < sockets+500 {
		t.Fatalf("%d files may be open, this takes %d (%v)", limit.Cur, sockets+500, err)
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
	testutil.Eventually(t, "all to listen", func() bool { return readMetric(t, server, "agentmarket_subscriptions") == sockets })
	each := int(readMetric(t, server, "process_resident_memory_bytes")-before) / sockets

	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	var reading sync.WaitGroup
	for _, conn := range conns {
		reading.Go(func() { h.recordEvents(ctx, conn) })
	}
	h.start = time.Now()
	h.postTasks(t, server, poster, 1, "D")
	testutil.Eventually(t, "all to hear of the task", func() bool { return h.received.Load() == sockets })
	hangUp()
	reading.Wait()
	last := h.percentile(100)
	if each >= maxBytesPerSocket || last >= maxFanOutTime {
		t.Errorf("a socket takes %d bytes, want less than %d; a post reaches the last after %s, want less than %s", each, maxBytesPerSocket, last, maxFanOutTime)
	}
	trusttest.Report(t, "sockets", "%d sockets, %.1f KiB of the server each; a post reaches the last after %s", sockets, float64(each)/1024, last.Round(time.Millisecond))
}

// latencyRecorder is when tasks were posted and how long it took until they were heard of.
type latencyRecorder struct {
	start    time.Time
	postedAt []atomic.Int64 // since then, by number
	received atomic.Int64

	mu        sync.Mutex
	latencies []time.Duration
}

// subscribe opens a socket that hears of every task. A narrow one takes little
// before its sender must wait: on loopback that is megabytes otherwise.
func (h *latencyRecorder) subscribe(t *testing.T, server *testserver.Server, narrow bool) *websocket.Conn {
	t.Helper()
	dialer := websocket.Dialer{Subprotocols: []string{"graphql-transport-ws"}, ReadBufferSize: 1 << 10, WriteBufferSize: 1 << 10}
	if narrow {
		dialer.NetDialContext = (&net.Dialer{Control: func(_, _ string, conn syscall.RawConn) (err error) {
			return errors.Join(conn.Control(func(fd uintptr) {
				err = errors.Join(syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, narrowReceiveBuffer),
					syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 536)) // short segments keep the sender's buffer short
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

// recordEvents notes when tasks are heard of, until ctx ends.
func (h *latencyRecorder) recordEvents(ctx context.Context, conn *websocket.Conn) {
	unhook := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends a read that waits
	defer unhook()
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
			continue // the welcome, or a ping
		}
		took := time.Since(h.start) - time.Duration(h.postedAt[n].Load())
		h.mu.Lock()
		h.latencies = append(h.latencies, took)
		h.mu.Unlock()
		h.received.Add(1)
	}
}

// postTasks posts the tasks at a pace a second, whether or not the last was answered.
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

// percentile is what so many of a hundred took at most, from the request of the
// post to the last byte of the event.
func (h *latencyRecorder) percentile(percent int) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	slices.Sort(h.latencies)
	return h.latencies[(len(h.latencies)-1)*percent/100]
}

// readSlowly reads a byte a second until ctx ends or the connection does.
func readSlowly(ctx context.Context, conn net.Conn) {
	second := time.NewTicker(time.Second)
	defer second.Stop()
	unhook := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer unhook()
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

// peakMetric is the highest that a metric has been for some seconds: it takes the job
// queue as long until all of it runs.
func peakMetric(t *testing.T, server *testserver.Server, name string) (value float64) {
	t.Helper()
	looks := time.NewTicker(100 * time.Millisecond)
	defer looks.Stop()
	for began := time.Now(); time.Since(began) < 6*time.Second; <-looks.C {
		value = max(value, readMetric(t, server, name))
	}
	return value
}

// readMetric is a figure of the server's own.
func readMetric(t *testing.T, server *testserver.Server, name string) float64 {
	t.Helper()
	_, text := server.Do(http.MethodGet, "/metrics", "", "")
	found := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(text)
	if found == nil {
		t.Errorf("there is no metric %s", name)
		return 0
	}
	value, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	return value
}

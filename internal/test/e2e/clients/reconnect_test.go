package clients_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

// TestReconnect posts tasks continuously while connections are closed and the server is
// killed or stopped and restarted. Each client resumes after its last cursor, by
// resubscribing or by its own retries, and in the end has every task once, in the order of
// posting.
func TestReconnect(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t, "AGENTMARKET_STARTING_CREDITS=1000000")
	proxy := startProxy(t, server)
	agent := server.Register("Listener", map[string]any{"capabilities": []string{"listening"}})
	listeners := map[string]*listener{}
	for _, name := range clientNames() {
		for _, mending := range []string{"resubscribe", "retry"} {
			listeners[name+" "+mending] = startListener(t, runScript(t, "listen.mjs", name, proxy.url+"/graphql", agent.Key, mending))
		}
	}
	posted := startPosting(t, server, proxy)
	breaks := []func(){
		proxy.closeConnections,
		func() { // a power cut
			proxy.setPaused(true)
			server.Kill()
			server.Restart()
			proxy.setPaused(false)
		},
		func() { // an upgrade
			proxy.setPaused(true)
			server.Stop()
			server.Restart()
			proxy.setPaused(false)
		},
	}
	order := []int{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2}
	for _, which := range order {
		since := posted.count.Load() + 2 // one may have been in flight when the connections closed
		for name, l := range listeners {
			l.waitForTasks(t, name, since)
		}
		breaks[which]()
	}
	titles := posted.stop()
	for name, l := range listeners {
		l.waitForTasks(t, name, int64(len(titles)))
		received, ended := l.snapshot()
		if !slices.Equal(received, titles) {
			t.Errorf("%s received %q, posted %q", name, received, titles)
		}
		if mended := strings.HasSuffix(name, " retry"); mended && len(ended) > 0 || !mended && len(ended) < len(order) {
			t.Errorf("%s: its subscription ended with %+v", name, ended)
		}
		if slices.Contains(ended, endReason{Message: "complete"}) {
			t.Errorf("%s: its subscription was completed", name)
		}
	}
}

// taskPoster posts tasks one after another.
type taskPoster struct {
	count atomic.Int64 // tasks posted so far
	stop  func() []string
}

// startPosting posts tasks until it is stopped. It uses the proxy, so it retries requests
// whose connection is closed.
func startPosting(t *testing.T, server *testserver.Server, proxy *tcpProxy) *taskPoster {
	t.Helper()
	poster := server.Register("Poster", nil)
	through := *server
	through.URL = proxy.url
	ctx, cancel := context.WithCancel(t.Context())
	var p taskPoster
	var titles []string
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			title := fmt.Sprintf("Task %d", len(titles)+1)
			for postTask(&through, poster.Key, title, 2, "listening") != nil {
				if t.Context().Err() != nil {
					return
				}
			}
			titles = append(titles, title)
			p.count.Add(1)
		}
	})
	p.stop = func() []string {
		cancel()
		running.Wait()
		return titles
	}
	t.Cleanup(func() { p.stop() })
	return &p
}

// listener is a running listen.mjs.
type listener struct {
	mu      sync.Mutex
	titles  []string
	endings []endReason
	changed chan struct{}
}

// startListener records what a script prints.
func startListener(t *testing.T, client nodeProcess) *listener {
	t.Helper()
	l := &listener{changed: make(chan struct{}, 1)}
	go func() { // ends when the script exits
		for text := range client.lines {
			l.record(text)
		}
	}()
	return l
}

func (l *listener) record(text []byte) {
	var line struct {
		Title string
		Ended *endReason
	}
	if err := json.Unmarshal(text, &line); err != nil {
		line.Title = fmt.Sprintf("%s: %v", text, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if line.Ended != nil {
		l.endings = append(l.endings, *line.Ended)
	} else {
		l.titles = append(l.titles, line.Title)
	}
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

func (l *listener) snapshot() ([]string, []endReason) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.titles), slices.Clone(l.endings)
}

// waitForTasks waits until the script has received n tasks.
func (l *listener) waitForTasks(t *testing.T, name string, tasks int64) {
	t.Helper()
	timeout := time.After(testutil.Timeout)
	for {
		received, ended := l.snapshot()
		if int64(len(received)) >= tasks {
			return
		}
		select {
		case <-l.changed:
		case <-timeout:
			t.Fatalf("%s received %d tasks, want %d; its subscriptions ended with %+v", name, len(received), tasks, ended)
		}
	}
}

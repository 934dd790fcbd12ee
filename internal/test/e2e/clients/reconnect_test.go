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

	"agentmarket.space/server/internal/test/e2e/program"
)

// TestReconnect posts tasks without pause while connections are cut again and
// again, the server is killed and started, stopped and started. Each client goes
// on after its last cursor, by subscribing again or by its own retries: in the
// end it has seen every task once, in the order of posting.
func TestReconnect(t *testing.T) {
	t.Parallel()
	server := program.Start(t, "AGENTMARKET_STARTING_CREDITS=1000000")
	door := openDoor(t, server)
	agent := server.Register("Listener", map[string]any{"capabilities": []string{"listening"}})
	listeners := map[string]*listener{}
	for _, name := range clients() {
		for _, mending := range []string{"resubscribe", "retry"} {
			listeners[name+" "+mending] = listen(t, script(t, "listen.mjs", name, door.url+"/graphql", agent.Key, mending))
		}
	}
	posted := keepPosting(t, server, door)
	breaks := []func(){
		door.cut,
		func() { // a power cut
			door.setShut(true)
			server.Kill()
			server.Restart()
			door.setShut(false)
		},
		func() { // an upgrade
			door.setShut(true)
			server.Stop()
			server.Restart()
			door.setShut(false)
		},
	}
	order := []int{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2}
	for _, which := range order {
		since := posted.so.Load() + 2 // one may have been on its way when the connections broke
		for name, l := range listeners {
			l.await(t, name, since)
		}
		breaks[which]()
	}
	titles := posted.stop()
	for name, l := range listeners {
		l.await(t, name, int64(len(titles)))
		heard, ended := l.all()
		if !slices.Equal(heard, titles) {
			t.Errorf("%s has heard %q, posted were %q", name, heard, titles)
		}
		if mended := strings.HasSuffix(name, " retry"); mended && len(ended) > 0 || !mended && len(ended) < len(order) {
			t.Errorf("%s: its subscription ended with %+v", name, ended)
		}
		if slices.Contains(ended, ending{Message: "complete"}) {
			t.Errorf("%s was told that its subscription is complete", name)
		}
	}
}

// posting is tasks being posted one after the other.
type posting struct {
	so   atomic.Int64 // how many there are
	stop func() []string
}

// keepPosting posts until it is stopped. It goes through the door, so that its
// requests are cut like everybody's: it sends them again until they are answered.
func keepPosting(t *testing.T, server *program.Server, door *door) *posting {
	t.Helper()
	poster := server.Register("Poster", nil)
	through := *server
	through.URL = door.url
	ctx, cancel := context.WithCancel(t.Context())
	var p posting
	var titles []string
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			title := fmt.Sprintf("Task %d", len(titles)+1)
			for post(&through, poster.Key, title, 2, "listening") != nil {
				if t.Context().Err() != nil {
					return
				}
			}
			titles = append(titles, title)
			p.so.Add(1)
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
	ended   []ending
	changed chan struct{}
}

// listen takes down what a script prints, as fast as it does.
func listen(t *testing.T, client process) *listener {
	t.Helper()
	l := &listener{changed: make(chan struct{}, 1)}
	go func() { // ends with the script
		for text := range client.lines {
			l.take(text)
		}
	}()
	return l
}

func (l *listener) take(text []byte) {
	var line struct {
		Title string
		Ended *ending
	}
	if err := json.Unmarshal(text, &line); err != nil {
		line.Title = fmt.Sprintf("%s: %v", text, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if line.Ended != nil {
		l.ended = append(l.ended, *line.Ended)
	} else {
		l.titles = append(l.titles, line.Title)
	}
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

func (l *listener) all() ([]string, []ending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.titles), slices.Clone(l.ended)
}

// await waits until it has heard of so many tasks.
func (l *listener) await(t *testing.T, name string, tasks int64) {
	t.Helper()
	tooLong := time.After(patience)
	for {
		heard, ended := l.all()
		if int64(len(heard)) >= tasks {
			return
		}
		select {
		case <-l.changed:
		case <-tooLong:
			t.Fatalf("%s has heard of %d tasks, not of %d; its subscriptions ended with %+v", name, len(heard), tasks, ended)
		}
	}
}

package load_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/99designs/gqlgen/graphql/handler"
	"github.com/99designs/gqlgen/graphql/handler/transport"

	"agentmarket.space/server/bench/baseline/graph"
	"agentmarket.space/server/bench/load"
)

func TestRun(t *testing.T) {
	t.Parallel()
	answers := func(text string, status int) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			w.Write([]byte(text)) //nolint:errcheck // the client notices missing data
		}))
		t.Cleanup(server.Close)
		return server.Listener.Addr().String()
	}
	send := func(t *testing.T, addr string) (*load.Result, error) {
		t.Helper()
		request := load.NewRequest("GET", "/", nil, "", "right", 1)
		return load.Run(t.Context(), addr, 2, []load.Request{request}, new(load.StampCounter), 20*time.Millisecond)
	}

	t.Run("right answers are counted, short or long", func(t *testing.T) {
		t.Parallel()
		for _, padding := range []int{0, 100_000} { // net/http sends the long one in chunks
			result, err := send(t, answers(strings.Repeat(".", padding)+"right", http.StatusOK))
			if err != nil || result.Latency.Count() == 0 || result.Elapsed == 0 {
				t.Errorf("padding %d: %v, %v", padding, result, err)
			}
		}
	})
	t.Run("a wrong answer ends the run", func(t *testing.T) {
		t.Parallel()
		for text, status := range map[string]int{"right": http.StatusInternalServerError, "other": http.StatusOK, `right "errors":`: http.StatusOK} {
			if _, err := send(t, answers(text, status)); !errors.Is(err, load.ErrWrongResponse) {
				t.Errorf("%d %s: %v", status, text, err)
			}
		}
	})
	t.Run("only this machine is a target", func(t *testing.T) {
		t.Parallel()
		for _, addr := range []string{"192.0.2.1:80", "example.com:80", "nowhere"} {
			if _, err := load.Dial(t.Context(), addr); err == nil {
				t.Errorf("%s was dialled", addr)
			}
		}
	})
}

func TestAudience(t *testing.T) {
	t.Parallel()
	const subscribers, events = 5, 20

	t.Run("every event reaches everybody once", func(t *testing.T) {
		t.Parallel()
		for _, pacing := range []load.Pacing{{Window: 3}, {Window: 3, PerSecond: 1000}} {
			addr := startMarket(t, 1)
			audience := newAudience(t, addr, subscribers, 0, events+50)
			if err := audience.WarmUp(t.Context(), addr, postRequest()); err != nil {
				t.Fatal(err)
			}
			delivery, err := audience.Broadcast(t.Context(), addr, postRequest(), events, pacing)
			if err != nil || delivery.Deliveries != subscribers*events || delivery.Latency.Count() != subscribers*events {
				t.Errorf("%+v: %v, %v", pacing, delivery, err)
			}
		}
	})
	t.Run("an event that comes twice is found", func(t *testing.T) {
		t.Parallel()
		addr := startMarket(t, 2)
		audience := newAudience(t, addr, subscribers, 0, events+50)
		if err := audience.WarmUp(t.Context(), addr, postRequest()); err != nil {
			t.Fatal(err)
		}
		if _, err := audience.Broadcast(t.Context(), addr, postRequest(), events, load.Pacing{Window: 3}); !errors.Is(err, load.ErrWrongResponse) {
			t.Errorf("want %v, got %v", load.ErrWrongResponse, err)
		}
	})
	t.Run("an event that never comes is found", func(t *testing.T) {
		t.Parallel()
		addr := startMarket(t, 0)
		audience := newAudience(t, addr, subscribers, 0, events)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := audience.Broadcast(ctx, addr, postRequest(), events, load.Pacing{Window: events})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "100 of 100 deliveries had not come") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a subscription the server ends is found", func(t *testing.T) {
		t.Parallel()
		addr := startMarket(t, 1)
		audience, err := load.NewAudience(t.Context(), load.Subscription{Addr: addr, Init: sameForAll(`{}`), Payload: sameForAll(`{"query":"subscription { nonsense }"}`)}, 1, 0, 1)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { audience.Close() }) //nolint:errcheck // the connection is not used again
		if err := audience.WarmUp(t.Context(), addr, postRequest()); !errors.Is(err, load.ErrWrongResponse) {
			t.Errorf("got %v", err)
		}
	})
}

func newAudience(t *testing.T, addr string, subscribers, stalled, events int) *load.Audience {
	t.Helper()
	audience, err := load.NewAudience(t.Context(), load.Subscription{
		Addr:         addr,
		Init:         sameForAll(`{}`),
		Payload:      sameForAll(`{"query":"subscription { taskPosted { cursor task { title description } } }"}`),
		StampPrefix:  `"title":"bench-`,
		CursorPrefix: `"cursor":"`,
	}, subscribers, stalled, events)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { audience.Close() }) //nolint:errcheck // the connection is not used again
	return audience
}

// sameForAll returns the same text for every subscriber.
func sameForAll(text string) func(int) string { return func(int) string { return text } }

func postRequest() load.Request {
	return load.NewRequest("POST", "/graphql", nil,
		`{"query":"mutation { postTask(input: {title: \"bench-#########\", description: \"d\", budget: 10}) { task { title } } }"}`,
		`"title":`, 1)
}

// startMarket starts a server that publishes each posted task a number of times.
func startMarket(t *testing.T, times int) (addr string) {
	t.Helper()
	resolver := graph.NewConstantResolver("")
	resolver.Publish = func(task *graph.Task) {
		for range times {
			resolver.Hub.Publish(task)
		}
	}
	server := handler.New(graph.NewExecutableSchema(graph.Config{Resolvers: resolver}))
	server.AddTransport(transport.Websocket{})
	server.AddTransport(transport.POST{})
	listener := httptest.NewServer(server)
	t.Cleanup(listener.Close)
	return listener.Listener.Addr().String()
}

// TestAudience_stalledSubscriber: a subscriber that reads nothing blocks a server that
// waits for the slowest, which shows that the measurement detects it.
func TestAudience_stalledSubscriber(t *testing.T) {
	t.Parallel()
	large := load.NewRequest("POST", "/graphql", nil,
		`{"query":"mutation { postTask(input: {title: \"bench-#########\", description: \"`+strings.Repeat("d", 8<<10)+`\", budget: 10}) { task { title } } }"}`,
		`"title":`, 1)
	for _, stalled := range []int{0, 1} {
		addr := startMarket(t, 1)
		audience := newAudience(t, addr, 5, stalled, 250)
		if err := audience.WarmUp(t.Context(), addr, postRequest()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		if stalled > 0 {
			ctx, cancel = context.WithTimeout(t.Context(), 2*time.Second)
		}
		_, err := audience.Broadcast(ctx, addr, large, 200, load.Pacing{Window: 3})
		cancel()
		switch {
		case stalled == 0 && err != nil:
			t.Errorf("nobody has stalled: %v", err)
		case stalled > 0 && (!errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "deliveries had not come")):
			t.Errorf("200 events of 8 KiB went past a reader that has stalled: %v", err)
		}
	}
}

// TestAudience_pocketbase uses a server that behaves like the documentation of PocketBase's
// realtime API.
func TestAudience_pocketbase(t *testing.T) {
	t.Parallel()
	topics, posted := make(chan string, 1), make(chan string, 50)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/realtime", func(w http.ResponseWriter, r *http.Request) {
		send := func(chunk string) {
			io.WriteString(w, chunk)              //nolint:errcheck // the client notices missing data
			http.NewResponseController(w).Flush() //nolint:errcheck // as above
		}
		send("id:c1\nevent:PB_CONNECT\ndata:{\"clientId\":\"c1\"}\n\n")
		for {
			select {
			case title := <-posted:
				send("id:c1\nevent:tasks/*\n")
				send(fmt.Sprintf("data:{\"record\":{\"title\":%q}}\n\n", title))
			case <-r.Context().Done():
				return
			}
		}
	})
	mux.HandleFunc("POST /api/realtime", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		topics <- string(body)
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /tasks", func(w http.ResponseWriter, r *http.Request) {
		title, _ := io.ReadAll(r.Body)
		posted <- string(title)
		w.Write([]byte("posted")) //nolint:errcheck // the client notices missing data
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	addr := server.Listener.Addr().String()
	audience, err := load.NewAudience(t.Context(), load.Subscription{Addr: addr, Topic: "tasks/*", StampPrefix: `"title":"bench-`}, 1, 0, 30)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { audience.Close() }) //nolint:errcheck // the connection is not used again
	if asked := <-topics; asked != `{"clientId":"c1","subscriptions":["tasks/*"]}` {
		t.Error(asked)
	}
	post := load.NewRequest("POST", "/tasks", nil, "bench-"+load.Stamp, "posted", 1)
	if delivery, err := audience.Broadcast(t.Context(), addr, post, 20, load.Pacing{Window: 3}); err != nil || delivery.Deliveries != 20 {
		t.Errorf("%v, %v", delivery, err)
	}
}

// TestRunSequences: every sequence is sent once in its order, and the response to its last
// request is kept.
func TestRunSequences(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	step := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		which, want := strings.Trim(r.URL.Path, "/"), r.URL.Query().Get("step")
		if strconv.Itoa(step[which]) != want {
			w.WriteHeader(http.StatusConflict)
		}
		step[which]++
		io.WriteString(w, which+" "+want) //nolint:errcheck // the client notices missing data
	}))
	t.Cleanup(server.Close)
	var sequences [][]load.Request
	for i := range 50 {
		sequences = append(sequences, []load.Request{
			load.NewRequest("GET", fmt.Sprintf("/%d?step=0", i), nil, "", "", 0),
			load.NewRequest("GET", fmt.Sprintf("/%d?step=1", i), nil, "", "", 0),
		})
	}
	kept := map[string]bool{}
	result, err := load.RunSequences(t.Context(), server.Listener.Addr().String(), 4, sequences, new(load.StampCounter), func(answer []byte) { kept[string(answer)] = true })
	if err != nil || result.Latency.Count() != 50 || len(kept) != 50 || !kept["49 1"] {
		t.Errorf("%d sequences, %d kept: %v", result.Latency.Count(), len(kept), err)
	}
	if _, err := load.RunSequences(t.Context(), server.Listener.Addr().String(), 4, sequences, new(load.StampCounter), nil); !errors.Is(err, load.ErrWrongResponse) {
		t.Errorf("sent twice: %v", err)
	}
}

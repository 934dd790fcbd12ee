package load_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
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
			w.Write([]byte(text)) //nolint:errcheck // the client misses what was not sent
		}))
		t.Cleanup(server.Close)
		return server.Listener.Addr().String()
	}
	send := func(t *testing.T, addr string) (*load.Result, error) {
		t.Helper()
		request := load.NewRequest("GET", "/", nil, "", "right", 1)
		return load.Run(t.Context(), addr, 2, []load.Request{request}, new(load.Numbers), 20*time.Millisecond)
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
			if _, err := send(t, answers(text, status)); !errors.Is(err, load.ErrWrongAnswer) {
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
			addr := market(t, 1)
			audience := gather(t, addr, subscribers, events+50)
			if err := audience.Warm(t.Context(), addr, post()); err != nil {
				t.Fatal(err)
			}
			delivery, err := audience.Broadcast(t.Context(), addr, post(), events, pacing)
			if err != nil || delivery.Deliveries != subscribers*events || delivery.Latency.Count() != subscribers*events {
				t.Errorf("%+v: %v, %v", pacing, delivery, err)
			}
		}
	})
	t.Run("an event that comes twice is found", func(t *testing.T) {
		t.Parallel()
		addr := market(t, 2)
		audience := gather(t, addr, subscribers, events+50)
		if err := audience.Warm(t.Context(), addr, post()); err != nil {
			t.Fatal(err)
		}
		if _, err := audience.Broadcast(t.Context(), addr, post(), events, load.Pacing{Window: 3}); !errors.Is(err, load.ErrWrongAnswer) {
			t.Errorf("want %v, got %v", load.ErrWrongAnswer, err)
		}
	})
	t.Run("an event that never comes is found", func(t *testing.T) {
		t.Parallel()
		addr := market(t, 0)
		audience := gather(t, addr, subscribers, events)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := audience.Broadcast(ctx, addr, post(), events, load.Pacing{Window: events})
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "100 of 100 deliveries had not come") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a subscription the server ends is found", func(t *testing.T) {
		t.Parallel()
		addr := market(t, 1)
		audience, err := load.Gather(t.Context(), load.Subscription{Addr: addr, Init: `{}`, Payload: `{"query":"subscription { nonsense }"}`}, 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { audience.Close() }) //nolint:errcheck // nothing is lost with it
		if err := audience.Warm(t.Context(), addr, post()); !errors.Is(err, load.ErrWrongAnswer) {
			t.Errorf("got %v", err)
		}
	})
}

func gather(t *testing.T, addr string, subscribers, events int) *load.Audience {
	t.Helper()
	audience, err := load.Gather(t.Context(), load.Subscription{
		Addr:    addr,
		Init:    `{}`,
		Payload: `{"query":"subscription { taskPosted { task { title } } }"}`,
		Mark:    `"title":"bench-`,
	}, subscribers, events)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { audience.Close() }) //nolint:errcheck // nothing is lost with it
	return audience
}

func post() load.Request {
	return load.NewRequest("POST", "/graphql", nil,
		`{"query":"mutation { postTask(input: {title: \"bench-#########\", description: \"d\", budget: 10}) { task { title } } }"}`,
		`"title":`, 1)
}

// market is a server that announces each posted task so many times.
func market(t *testing.T, times int) (addr string) {
	t.Helper()
	resolver := graph.Constants("")
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

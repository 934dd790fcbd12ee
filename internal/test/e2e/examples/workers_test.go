package examples_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
)

// TestWorkers: a worker completes tasks posted before and after it starts, although the
// response to its first completion is lost and the server is killed and restarted. It is
// paid once for each task: nine tenths of 25, rounded down.
func TestWorkers(t *testing.T) {
	t.Parallel()
	for name, run := range map[string]exampleCommand{
		"worker-go": goExample("worker-go"), "worker-node": npmExample("worker-node/worker.mjs"), "worker-python": pythonExample("worker-python/worker.py"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := run(t)
			server := testserver.Start(t)
			front := startLossyProxy(t, server)
			worker := server.Register("Worker", map[string]any{"capabilities": []string{"shouting"}})
			poster := server.Register("Poster", nil)
			ids := []string{mustPostTask(t, server, poster.Key, "hello")}
			example := startExample(t, args, "AGENTMARKET_URL="+front.url, "AGENTMARKET_API_KEY="+worker.Key)
			paid := func(balance int) {
				t.Helper()
				want := fmt.Sprintf("%s: completed, %d credits", ids[len(ids)-1], balance)
				if got := example.nextLine(t); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
			paid(122)
			ids = append(ids, mustPostTask(t, server, poster.Key, "once more"))
			paid(144)
			server.Kill()
			server.Restart()
			ids = append(ids, mustPostTask(t, server, poster.Key, "and again"))
			paid(166)
			for i, want := range []string{"HELLO", "ONCE MORE", "AND AGAIN"} {
				if _, text := server.Do(http.MethodGet, "/api/tasks/"+ids[i], poster.Key, ""); !strings.Contains(text, `"result":"`+want+`"`) {
					t.Errorf("task %d is %s", i, text)
				}
			}
			if n := front.completions.Load(); n < 2 {
				t.Errorf("%d completions: the first was lost and not retried", n)
			}
			server.Verify()
		})
	}
}

// lossyProxy is an HTTP proxy to a server that can drop a response.
type lossyProxy struct {
	url         string
	completions atomic.Int64
}

// startLossyProxy starts a proxy that drops the response to the first completion.
func startLossyProxy(t *testing.T, server *testserver.Server) *lossyProxy {
	t.Helper()
	target, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	d, quiet := &lossyProxy{}, slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ErrorLog = quiet
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		completes := strings.HasSuffix(r.URL.Path, "/complete") || bytes.Contains(body, []byte("completeTask"))
		if !completes || d.completions.Add(1) > 1 {
			proxy.ServeHTTP(w, r)
			return
		}
		answer := httptest.NewRecorder()
		proxy.ServeHTTP(answer, r)
		if answer.Code != http.StatusOK {
			t.Errorf("the first completion: %d %s", answer.Code, answer.Body)
		}
		panic(http.ErrAbortHandler)
	}))
	front.Config.ErrorLog = quiet
	front.Start()
	d.url = front.URL
	t.Cleanup(func() {
		server.Kill() // so that no connection stays open
		front.Close()
	})
	return d
}

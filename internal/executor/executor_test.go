package executor_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"agentmarket.space/server/internal/executor"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

const secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

func newJob() executor.Job {
	now := models.NewTime(time.Date(2026, 3, 13, 12, 0, 0, 0, time.UTC))
	return executor.Job{TaskID: "task-1", Description: "Write a haiku <now>", Budget: 15, CreatedAt: now, Deadline: now.Add(time.Hour)}
}

// runEndpoint runs a job on an agent whose endpoint is handler.
func runEndpoint(t *testing.T, handler http.HandlerFunc) (string, error) {
	t.Helper()
	outcome, err := newEndpointAgent(t, testutil.Timeout, handler).run(t.Context(), newJob())
	return outcome.Result, err
}

// shortTimeout is the timeout of runs that must time out. Other runs use
// testutil.Timeout.
const shortTimeout = 300 * time.Millisecond

// endpointAgent is an agent with an endpoint, and its executor.
type endpointAgent struct {
	*executor.Executor
	agent executor.Agent
}

func (s endpointAgent) run(ctx context.Context, job executor.Job) (executor.RunResult, error) {
	return s.Run(ctx, s.agent, secret, job)
}

// newEndpointAgent returns an agent whose endpoint is handler, with a timeout for a
// run.
func newEndpointAgent(t *testing.T, timeout time.Duration, handler http.HandlerFunc) endpointAgent {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	e := executor.New(executor.Options{
		Outbound:       outbound.New(outbound.Options{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, RootCAs: roots}),
		MarketplaceURL: "https://agentmarket.space", Timeout: timeout, Now: func() time.Time { return time.Unix(1773403200, 0) },
	})
	return endpointAgent{e, executor.Agent{ID: "a", EndpointURL: server.URL + "/execute"}}
}

// TestEndpoint checks the request to an endpoint, which is signed like a webhook, and
// both forms of the result.
func TestEndpoint(t *testing.T) {
	t.Parallel()
	result, err := runEndpoint(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		const want = `{"event":"task.execute","task":{"id":"task-1","description":"Write a haiku <now>","budget":15,` +
			`"created_at":"2026-03-13T12:00:00Z","deadline":"2026-03-13T13:00:00Z"},"marketplace_url":"https://agentmarket.space"}`
		if string(body) != want {
			t.Errorf("body is %s", body)
		}
		for name, value := range map[string]string{
			"Content-Type": "application/json", "X-AgentMarket-Event": "task.execute", "X-AgentMarket-Delivery": "task-1",
			"X-AgentMarket-Timestamp": "1773403200", "X-AgentMarket-Signature": outbound.Sign(secret, body), "Webhook-Id": "task-1",
		} {
			if r.Header.Get(name) != value {
				t.Errorf("%s is %q, want %q", name, r.Header.Get(name), value)
			}
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_, _ = io.WriteString(w, `{"result":"Packets flow"}`)
	})
	if err != nil || result != "Packets flow" {
		t.Errorf("got %q, %v", result, err)
	}
	if text, err := runEndpoint(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "Plain text") }); err != nil || text != "Plain text" {
		t.Errorf("got %q, %v", text, err)
	}
}

// TestEndpoint_fails checks the code and the message of each way in which an endpoint
// can fail.
func TestEndpoint_fails(t *testing.T) {
	t.Parallel()
	respondJSON := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, text)
		}
	}
	for want, handler := range map[string]http.HandlerFunc{
		"returned status 500": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"returned status 204": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"returned status 307": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://127.0.0.1/", http.StatusTemporaryRedirect)
		},
		"endpoint failed":           func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"longer than 2 MiB":         respondJSON(`{"result":"` + strings.Repeat("a", 3<<20) + `"}`),
		`with {"result": "…"}`:      respondJSON(`{"result":7}`),
		`must respond with {"resul`: respondJSON(`{"answer":"x"}`),
		"must respond with":         respondJSON(`nonsense`),
	} {
		if result, err := runEndpoint(t, handler); models.CodeOf(err) != models.ExecutionFailed || !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, %v, want %q", result, err, want)
		}
	}
	_, err := newEndpointAgent(t, shortTimeout, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}).run(t.Context(), newJob())
	if models.CodeOf(err) != models.ExecutionTimeout {
		t.Errorf("a hanging endpoint: %v, want EXECUTION_TIMEOUT", err)
	}
}

// TestEndpoint_async checks which responses are a promise: a 202 and, for a background
// job, a timeout. Other failures are not.
func TestEndpoint_async(t *testing.T) {
	t.Parallel()
	hang := func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}
	background := newJob()
	background.Background = true
	for name, row := range map[string]struct {
		handler http.HandlerFunc
		job     executor.Job
		want    models.Code
	}{
		"202": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }, newJob(), ""},
		"202 with a text": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusAccepted)
			_, _ = io.WriteString(w, "soon")
		}, background, ""},
		"202 with a result": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusAccepted)
			_, _ = io.WriteString(w, `{"result":"x"}`)
		}, newJob(), ""},
		"timeout of a background job":            {hang, background, ""},
		"timeout":                                {hang, newJob(), models.ExecutionTimeout},
		"500 for a background job":               {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, background, models.ExecutionFailed},
		"closed connection for a background job": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, background, models.ExecutionFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timeout := testutil.Timeout
			if strings.HasPrefix(name, "timeout") {
				timeout = shortTimeout
			}
			outcome, err := newEndpointAgent(t, timeout, row.handler).run(t.Context(), row.job)
			if row.want == "" && (err != nil || outcome != executor.RunResult{Promised: true}) {
				t.Errorf("got %+v, %v, want a promise and nothing else", outcome, err)
			}
			if row.want != "" && models.CodeOf(err) != row.want {
				t.Errorf("got %+v, %v, want %s", outcome, err, row.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	outcome, err := newEndpointAgent(t, testutil.Timeout, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		cancel()
		<-r.Context().Done()
	}).run(ctx, background)
	if err == nil || outcome.Promised {
		t.Errorf("a canceled job returned %+v, %v", outcome, err)
	}
}

// newClaudeExecutor returns an executor whose model API is handler, with a timeout for
// a prompt.
func newClaudeExecutor(t *testing.T, timeout time.Duration, handler http.HandlerFunc) *executor.Executor {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return executor.New(executor.Options{
		Outbound: outbound.New(outbound.Options{}), Timeout: testutil.Timeout, PromptTimeout: timeout, Now: time.Now,
		Claude: executor.ClaudeOptions{APIKey: "sk-secret", BaseURL: server.URL, Model: "claude-test", MaxTokens: 99},
	})
}

// messageJSON returns a response of the Messages API with texts as its content.
func messageJSON(texts ...string) string {
	content := []map[string]string{}
	for _, text := range texts {
		content = append(content, map[string]string{"type": "text", "text": text})
	}
	body, err := json.Marshal(map[string]any{
		"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-test", "content": content,
		"stop_reason": "end_turn", "usage": map[string]int{"input_tokens": 1, "output_tokens": 1},
	})
	if err != nil {
		panic(err)
	}
	return string(body)
}

// TestClaude checks that the agent's prompt is the system prompt and the job is the
// user message.
func TestClaude(t *testing.T) {
	t.Parallel()
	e := newClaudeExecutor(t, testutil.Timeout, func(w http.ResponseWriter, r *http.Request) {
		var params struct {
			Model     string
			MaxTokens int `json:"max_tokens"`
			System    []struct{ Text string }
			Messages  []struct {
				Role    string
				Content []struct{ Text string }
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&params); err != nil || r.URL.Path != "/v1/messages" || r.Header.Get("X-Api-Key") != "sk-secret" {
			t.Errorf("%s with key %q: %v", r.URL.Path, r.Header.Get("X-Api-Key"), err)
		}
		if got := fmt.Sprint(params); got != "{claude-test 99 [{You are a poet}] [{user [{Write a haiku <now>}]}]}" {
			t.Errorf("request is %s", got)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, messageJSON("Packets ", "flow"))
	})
	agent := executor.Agent{ID: "a", SystemPrompt: "You are a poet"}
	if err := e.CheckRunnable(agent); err != nil {
		t.Error(err)
	}
	if result, err := e.Run(t.Context(), agent, "", newJob()); err != nil || result.Result != "Packets flow" || *result.Tokens != 2 {
		t.Errorf("got %+v, %v", result, err)
	}
}

// TestClaude_fails checks that error messages of the model API, which may contain the
// key, are not returned.
func TestClaude_fails(t *testing.T) {
	t.Parallel()
	for want, handler := range map[string]http.HandlerFunc{
		"returned status 401": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"type":"error","error":{"type":"authentication_error","message":"sk-secret is not valid"}}`, http.StatusUnauthorized)
		},
		"returned status 529": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After-Ms", "1")
			http.Error(w, `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`, 529)
		},
		"returned no text": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, messageJSON())
		},
		"is unreachable": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		_, err := newClaudeExecutor(t, testutil.Timeout, handler).Run(t.Context(), executor.Agent{ID: "a", SystemPrompt: "You are a poet"}, "", newJob())
		if models.CodeOf(err) != models.ExecutionFailed || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		} else if strings.Contains(err.Error(), "sk-secret") || strings.Contains(err.Error(), "poet") {
			t.Errorf("the error contains a secret: %v", err)
		}
	}
}

// TestCheckRunnable checks the error code of agents that cannot run.
func TestCheckRunnable(t *testing.T) {
	t.Parallel()
	e := executor.New(executor.Options{Outbound: outbound.New(outbound.Options{}), Now: time.Now})
	for _, row := range []struct {
		agent executor.Agent
		want  models.Code
	}{
		{executor.Agent{}, models.Conflict},
		{executor.Agent{SystemPrompt: "You are a poet"}, models.Unavailable},
	} {
		if err := e.CheckRunnable(row.agent); err == nil || models.CodeOf(err) != row.want {
			t.Errorf("got %v, want %s", err, row.want)
		}
	}
	if err := e.CheckRunnable(executor.Agent{EndpointURL: "https://bot.example.com"}); err != nil {
		t.Error(err)
	}
}

// TestMaxConcurrent checks the limit of concurrent runs, and that a run that is
// canceled while it waits does not free a slot.
func TestMaxConcurrent(t *testing.T) {
	t.Parallel()
	var running, highest atomic.Int32
	entered, release := make(chan struct{}, 10), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		highest.Store(max(highest.Load(), running.Add(1)))
		entered <- struct{}{}
		<-release
		running.Add(-1)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, messageJSON("done"))
	}))
	t.Cleanup(server.Close)
	e := executor.New(executor.Options{
		Outbound: outbound.New(outbound.Options{}), Timeout: time.Minute, MaxConcurrent: 2, Now: time.Now,
		Claude: executor.ClaudeOptions{APIKey: "k", BaseURL: server.URL, Model: "m", MaxTokens: 1},
	})
	ended := make(chan error, 10)
	run := func(ctx context.Context) {
		_, err := e.Run(ctx, executor.Agent{ID: "a", SystemPrompt: "p"}, "", newJob())
		ended <- err
	}
	for range 2 {
		go run(t.Context())
		<-entered
	}
	ctx, cancel := context.WithCancel(t.Context())
	go run(ctx)
	cancel()
	if err := <-ended; models.CodeOf(err) != models.ExecutionTimeout {
		t.Errorf("the canceled run returned %v", err)
	}
	for range 3 {
		go run(t.Context())
	}
	close(release)
	for range 5 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if highest.Load() != 2 {
		t.Errorf("%d runs were concurrent, want 2", highest.Load())
	}
}

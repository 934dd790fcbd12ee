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
	"agentmarket.space/server/models"
)

const secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

func newJob() executor.Job {
	now := models.NewTime(time.Date(2026, 3, 13, 12, 0, 0, 0, time.UTC))
	return executor.Job{TaskID: "task-1", Description: "Write a haiku <now>", Budget: 15, CreatedAt: now, Deadline: now.Add(time.Hour)}
}

// runEndpoint runs an agent whose endpoint answers so.
func runEndpoint(t *testing.T, answer http.HandlerFunc) (string, error) {
	t.Helper()
	outcome, err := newEndpointAgent(t, longTimeout, answer).run(t.Context(), newJob())
	return outcome.Result, err
}

const (
	// longTimeout is how long an endpoint has that is to answer, and haste how long one
	// has that will not.
	longTimeout  = 20 * time.Second
	shortTimeout = 300 * time.Millisecond
)

// endpointAgent is an agent with an endpoint and who runs it.
type endpointAgent struct {
	*executor.Executor
	agent executor.Agent
}

func (s endpointAgent) run(ctx context.Context, job executor.Job) (executor.RunResult, error) {
	return s.Run(ctx, s.agent, secret, job)
}

// newEndpointAgent is an agent whose endpoint answers so and has so long to.
func newEndpointAgent(t *testing.T, within time.Duration, answer http.HandlerFunc) endpointAgent {
	t.Helper()
	server := httptest.NewUnstartedServer(answer)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	e := executor.New(executor.Options{
		Outbound:       outbound.New(outbound.Options{AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, RootCAs: roots}),
		MarketplaceURL: "https://agentmarket.space", Timeout: within, Now: func() time.Time { return time.Unix(1773403200, 0) },
	})
	return endpointAgent{e, executor.Agent{ID: "a", EndpointURL: server.URL + "/execute"}}
}

// TestEndpoint is called with the job, signed like a webhook.
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
			t.Errorf("was sent %s", body)
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

// TestEndpoint_fails in every way that an endpoint can; the caller is told a
// code and why, and nothing of the inside.
func TestEndpoint_fails(t *testing.T) {
	t.Parallel()
	inJSON := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, text)
		}
	}
	for says, answer := range map[string]http.HandlerFunc{
		"answered 500": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"answered 204": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"answered 307": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://127.0.0.1/", http.StatusTemporaryRedirect)
		},
		"could not be used":       func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"too long":                inJSON(`{"result":"` + strings.Repeat("a", 3<<20) + `"}`),
		`with {"result": "…"}`:    inJSON(`{"result":7}`),
		`not answer with {"resul`: inJSON(`{"answer":"x"}`),
		"did not answer with":     inJSON(`nonsense`),
	} {
		if result, err := runEndpoint(t, answer); models.CodeOf(err) != models.ExecutionFailed || !strings.Contains(err.Error(), says) {
			t.Errorf("got %q, %v, want %q", result, err, says)
		}
	}
	_, err := newEndpointAgent(t, shortTimeout, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}).run(t.Context(), newJob())
	if models.CodeOf(err) != models.ExecutionTimeout {
		t.Errorf("an endpoint that hangs: %v", err)
	}
}

// TestEndpoint_async a result: with 202, or, when nobody waits, by not answering
// in time. What fails at once is no promise.
func TestEndpoint_async(t *testing.T) {
	t.Parallel()
	silent := func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}
	patient := newJob()
	patient.Background = true
	for name, row := range map[string]struct {
		answer http.HandlerFunc
		job    executor.Job
		want   models.Code
	}{
		"202": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }, newJob(), ""},
		"202 with a text": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusAccepted)
			_, _ = io.WriteString(w, "soon")
		}, patient, ""},
		"202 with a result": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusAccepted)
			_, _ = io.WriteString(w, `{"result":"x"}`)
		}, newJob(), ""},
		"silence":                    {silent, patient, ""},
		"silence while one waits":    {silent, newJob(), models.ExecutionTimeout},
		"500 when nobody waits":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, patient, models.ExecutionFailed},
		"hanging up, nobody waiting": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, patient, models.ExecutionFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			within := longTimeout
			if strings.HasPrefix(name, "silence") {
				within = shortTimeout
			}
			outcome, err := newEndpointAgent(t, within, row.answer).run(t.Context(), row.job)
			if row.want == "" && (err != nil || outcome != executor.RunResult{Promised: true}) {
				t.Errorf("got %+v, %v, want a promise and nothing else", outcome, err)
			}
			if row.want != "" && models.CodeOf(err) != row.want {
				t.Errorf("got %+v, %v, want %s", outcome, err, row.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	outcome, err := newEndpointAgent(t, longTimeout, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		cancel()
		<-r.Context().Done()
	}).run(ctx, patient)
	if err == nil || outcome.Promised {
		t.Errorf("a job that was called off gave %+v, %v", outcome, err)
	}
}

// newClaudeExecutor runs agents on a service that answers so and has so long to.
func newClaudeExecutor(t *testing.T, within time.Duration, answer http.HandlerFunc) *executor.Executor {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	return executor.New(executor.Options{
		Outbound: outbound.New(outbound.Options{}), Timeout: longTimeout, PromptTimeout: within, Now: time.Now,
		Claude: executor.ClaudeOptions{APIKey: "sk-secret", BaseURL: server.URL, Model: "claude-test", MaxTokens: 99},
	})
}

// messageJSON is an answer of the Messages API with these texts.
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

// TestClaude has the agent's prompt as the system's and the job as the user's.
func TestClaude(t *testing.T) {
	t.Parallel()
	e := newClaudeExecutor(t, longTimeout, func(w http.ResponseWriter, r *http.Request) {
		var sent struct {
			Model     string
			MaxTokens int `json:"max_tokens"`
			System    []struct{ Text string }
			Messages  []struct {
				Role    string
				Content []struct{ Text string }
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&sent); err != nil || r.URL.Path != "/v1/messages" || r.Header.Get("X-Api-Key") != "sk-secret" {
			t.Errorf("%s with key %q: %v", r.URL.Path, r.Header.Get("X-Api-Key"), err)
		}
		if got := fmt.Sprint(sent); got != "{claude-test 99 [{You are a poet}] [{user [{Write a haiku <now>}]}]}" {
			t.Errorf("was sent %s", got)
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

// TestClaude_fails: what the service says of itself, and of our key, stays here.
func TestClaude_fails(t *testing.T) {
	t.Parallel()
	for says, answer := range map[string]http.HandlerFunc{
		"answered 401": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"type":"error","error":{"type":"authentication_error","message":"sk-secret is not valid"}}`, http.StatusUnauthorized)
		},
		"answered 529": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After-Ms", "1")
			http.Error(w, `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`, 529)
		},
		"without text": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, messageJSON())
		},
		"could not be reached": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		_, err := newClaudeExecutor(t, longTimeout, answer).Run(t.Context(), executor.Agent{ID: "a", SystemPrompt: "You are a poet"}, "", newJob())
		if models.CodeOf(err) != models.ExecutionFailed || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %q", err, says)
		} else if strings.Contains(err.Error(), "sk-secret") || strings.Contains(err.Error(), "poet") {
			t.Errorf("the caller is told %v", err)
		}
	}
}

// TestCheckRunnable refuses who cannot run before anybody pays.
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

// TestMaxConcurrent: no more run at once than may; the others wait for their turn, and
// who gives up waiting frees nothing that is not theirs.
func TestMaxConcurrent(t *testing.T) {
	t.Parallel()
	var running, most atomic.Int32
	entered, release := make(chan struct{}, 10), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		most.Store(max(most.Load(), running.Add(1)))
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
	impatient, giveUp := context.WithCancel(t.Context())
	go run(impatient)
	giveUp()
	if err := <-ended; models.CodeOf(err) != models.ExecutionTimeout {
		t.Errorf("who waited in vain got %v", err)
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
	if most.Load() != 2 {
		t.Errorf("%d ran at once", most.Load())
	}
}

package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

// TestStartExecution_claudeStream: an asynchronous hire on Claude publishes its text as it
// arrives, and one agent cannot exceed the operator's limit of concurrent hires.
func TestStartExecution_claudeStream(t *testing.T) {
	t.Parallel()
	pieces := make(chan string)
	model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		say := func(kind, data string) {
			_, _ = fmt.Fprintf(w, "event: %s\ndata: {\"type\":%q,%s}\n\n", kind, kind, data)
			_ = http.NewResponseController(w).Flush()
		}
		say("message_start", `"message":{"id":"m","type":"message","role":"assistant","content":[],"usage":{"input_tokens":5,"output_tokens":1}}`)
		say("content_block_start", `"index":0,"content_block":{"type":"text","text":""}`)
		for piece := range pieces {
			say("content_block_delta", fmt.Sprintf(`"index":0,"delta":{"type":"text_delta","text":%q}`, piece))
		}
		say("message_delta", `"delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":7}`)
		say("message_stop", `"index":0`)
	}))
	t.Cleanup(model.Close)
	server := testserver.Start(t, "ANTHROPIC_API_KEY=k", "ANTHROPIC_BASE_URL="+model.URL, "AGENTMARKET_CLAUDE_AT_ONCE_PER_AGENT=1")
	poet, poster := server.Register("Poet", map[string]any{"systemPrompt": "You are a poet."}), server.Register("Poster", nil)

	var started struct {
		StartExecution struct{ Task struct{ ID string } }
	}
	start := func() error {
		return server.Query(poster.Key, `mutation($id: ID!) { startExecution(input: {agentId: $id, taskDescription: "A haiku.", budget: 15}) { task { id } } }`,
			map[string]any{"id": poet.ID}, &started)
	}
	if err := start(); err != nil {
		t.Fatal(err)
	}
	events := subscribeExecution(t, server, poster.Key, started.StartExecution.Task.ID)
	expectEvent := func(change, text, result string) {
		t.Helper()
		got := testutil.Receive(t, "an event of the hire", events)
		if got.Change != change || got.Text != text || got.Task.Result != result {
			t.Errorf("received %+v, want %s with %q and %q", got, change, text, result)
		}
	}
	expectEvent("STARTED", "", "")
	for _, piece := range []string{"Packets ", "flow"} {
		pieces <- piece
		expectEvent("WRITING", piece, "")
	}
	if err := start(); err == nil || !strings.Contains(err.Error(), "RATE_LIMITED") || !strings.Contains(err.Error(), "retryAfter") {
		t.Errorf("a second concurrent hire: %v", err)
	}
	close(pieces)
	expectEvent("SETTLED", "", "Packets flow")
	if event := testutil.Receive(t, "the end of the stream", events); event.Change != "" {
		t.Error("the stream continues after the end")
	}
	server.Stop()
	server.Verify()
}

// executionUpdate is an event of a hire.
type executionUpdate struct {
	Change, Text string
	Task         struct{ Result string }
}

// subscribeExecution returns the events of a hire until it ends.
func subscribeExecution(t *testing.T, server *testserver.Server, key, task string) <-chan executionUpdate {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), testutil.Timeout)
	t.Cleanup(cancel)
	body := fmt.Sprintf(`{"query":"subscription { executionUpdated(taskId: \"%s\") { change text task { result } } }"}`, task)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/graphql", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"Content-Type": "application/json", "Accept": "text/event-stream", "X-API-Key": key} {
		request.Header.Set(name, value)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	events := make(chan executionUpdate, 10)
	go func() {
		defer close(events)
		defer response.Body.Close() //nolint:errcheck // it is read to its end
		for lines := bufio.NewScanner(response.Body); lines.Scan(); {
			var event struct {
				Data struct{ ExecutionUpdated executionUpdate }
			}
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok && json.Unmarshal([]byte(data), &event) == nil {
				events <- event.Data.ExecutionUpdated
			}
		}
	}()
	return events
}

// TestStop_promisedHire: a server that stops does not wait for asynchronous results; the
// agent delivers its result after the next start.
func TestStop_promisedHire(t *testing.T) {
	t.Parallel()
	called := make(chan struct{}, 1)
	url, env := testserver.ServeTLS(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		called <- struct{}{}
	}))
	server := testserver.Start(t, env...)
	worker, poster := server.Register("Worker", map[string]any{"endpointUrl": url}), server.Register("Poster", nil)
	response := make(chan string, 1)
	go func() {
		status, text := server.Do(http.MethodPost, "/api/execute", poster.Key, fmt.Sprintf(`{"agent_id":%q,"task_description":"Slowly.","budget":15}`, worker.ID))
		response <- fmt.Sprint(status, " ", text)
	}()
	testutil.Receive(t, "the call of the endpoint", called)
	server.Terminate()
	text := testutil.Receive(t, "the response", response)
	if !strings.HasPrefix(text, "202 ") {
		t.Fatalf("the response to the waiting caller is %s", text)
	}
	<-server.Exited()
	if code := server.ExitCode(); code != 0 {
		t.Errorf("exit code %d\n%s", code, server.Log())
	}
	server.Restart()
	_, id, _ := strings.Cut(text, `"task_id":"`)
	id, _, _ = strings.Cut(id, `"`)
	if status, text := server.Do(http.MethodPost, "/api/tasks/"+id+"/complete", worker.Key, `{"result":"Done."}`); status != http.StatusOK || !strings.HasSuffix(text, `"balance":113}`) {
		t.Errorf("completing the hire: %d %s", status, text)
	}
	server.Stop()
	server.Verify()
}

package executor_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"agentmarket.space/server/internal/executor"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// streamHandler returns a handler that streams events like the model API.
func streamHandler(events ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || !strings.Contains(string(body), `"stream":true`) {
			http.Error(w, "stream was not requested", http.StatusTeapot)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		for _, event := range events {
			kind, _, _ := strings.Cut(strings.TrimPrefix(event, `{"type":"`), `"`)
			_, _ = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", kind, event)
		}
	}
}

const (
	messageStart = `{"type":"message_start","message":{"id":"m","type":"message","role":"assistant","model":"claude-test","content":[],"stop_reason":null,"usage":{"input_tokens":5,"output_tokens":1}}}`
	blockStart   = `{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`
	blockStop    = `{"type":"content_block_stop","index":0}`
	messageDelta = `{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":7}}`
	messageStop  = `{"type":"message_stop"}`
)

func textDelta(text string) string {
	return fmt.Sprintf(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":%q}}`, text)
}

// TestClaude_streams checks that OnText receives the text as the model writes it, and
// that only a complete response is a result.
func TestClaude_streams(t *testing.T) {
	t.Parallel()
	run := func(t *testing.T, timeout time.Duration, handler http.HandlerFunc) (executor.RunResult, []string, error) {
		t.Helper()
		var pieces []string
		job := newJob()
		job.Background, job.OnText = true, func(piece string) { pieces = append(pieces, piece) }
		outcome, err := newClaudeExecutor(t, timeout, handler).Run(t.Context(), executor.Agent{ID: "a", SystemPrompt: "You are a poet"}, "", job)
		return outcome, pieces, err
	}
	t.Run("a complete stream", func(t *testing.T) {
		t.Parallel()
		outcome, pieces, err := run(t, testutil.Timeout, streamHandler(messageStart, blockStart, textDelta("Packets "), `{"type":"ping"}`, textDelta("flow"), blockStop, messageDelta, messageStop))
		if err != nil || outcome.Result != "Packets flow" || strings.Join(pieces, "|") != "Packets |flow" || *outcome.Tokens != 12 {
			t.Errorf("got %+v, %q, %v", outcome, pieces, err)
		}
	})
	t.Run("a gateway without streaming", func(t *testing.T) {
		t.Parallel()
		outcome, pieces, err := run(t, testutil.Timeout, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, messageJSON("Packets ", "flow"))
		})
		if err != nil || outcome.Result != "Packets flow" || len(pieces) > 0 || *outcome.Tokens != 2 {
			t.Errorf("got %+v, %q, %v", outcome, pieces, err)
		}
	})
	t.Run("failures", func(t *testing.T) {
		t.Parallel()
		for name, row := range map[string]struct {
			handler http.HandlerFunc
			tokens  bool // the number of tokens is known
		}{
			"truncated":             {streamHandler(messageStart, blockStart, textDelta("Packets ")), false},
			"an error":              {streamHandler(messageStart, blockStart, textDelta("Packets "), `{"type":"error","error":{"type":"overloaded_error","message":"sk-secret"}}`), false},
			"no text":               {streamHandler(messageStart, messageDelta, messageStop), true},
			"delta without a block": {streamHandler(messageStart, textDelta("Packets ")), false},
			"HTML":                  {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, false},
			"timeout": {func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
			}, false},
			"status 400": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }, true},
		} {
			want, timeout := models.ExecutionFailed, testutil.Timeout
			if name == "timeout" {
				want, timeout = models.ExecutionTimeout, shortTimeout
			}
			outcome, _, err := run(t, timeout, row.handler)
			if models.CodeOf(err) != want || outcome.Result != "" || (outcome.Tokens != nil) != row.tokens {
				t.Errorf("%s: got %+v, %v", name, outcome, err)
			} else if strings.Contains(err.Error(), "sk-secret") {
				t.Errorf("%s: the error contains a secret: %v", name, err)
			}
		}
	})
}

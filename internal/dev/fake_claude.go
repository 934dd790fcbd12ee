package dev

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"agentmarket.space/server/internal/client"
)

// wordDelay is the delay between two words of a streamed reply.
const wordDelay = 40 * time.Millisecond

//go:embed replies.txt
var repliesFile string

// fakeClaude is a stub of the Claude API. It returns the replies of replies.txt in turn.
type fakeClaude struct {
	replies []string
	next    atomic.Uint64
}

func newFakeClaude() *fakeClaude {
	return &fakeClaude{replies: strings.Split(strings.TrimSpace(repliesFile), "\n\n")}
}

// ServeHTTP handles POST /v1/messages. It streams the reply word by word if the
// request asks for a stream.
func (c *fakeClaude) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Model  string
		Stream bool
	}
	if r.Method != http.MethodPost || r.URL.Path != "/v1/messages" {
		http.NotFound(w, r)
		return
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBodyBytes)).Decode(&request); err != nil {
		http.Error(w, `{"type":"error","error":{"type":"invalid_request_error","message":"invalid JSON"}}`, http.StatusBadRequest)
		return
	}
	n := c.next.Add(1)
	message := map[string]any{
		"id": fmt.Sprintf("msg_%d", n), "type": "message", "role": "assistant", "model": request.Model, "content": []any{}, "stop_reason": nil,
		"usage": map[string]int{"input_tokens": 1, "output_tokens": 1},
	}
	text := c.replies[(n-1)%uint64(len(c.replies))]
	if request.Stream {
		streamMessage(r.Context(), w, message, text)
		return
	}
	message["content"] = []any{map[string]string{"type": "text", "text": text}}
	message["stop_reason"] = "end_turn"
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(message) // an error means that the server closed the connection
}

// streamMessage writes a message as server-sent events.
func streamMessage(ctx context.Context, w http.ResponseWriter, message map[string]any, text string) {
	w.Header().Set("Content-Type", "text/event-stream")
	writeEvent := func(kind string, fields map[string]any) {
		fields["type"] = kind
		data, _ := json.Marshal(fields)                              //nolint:errchkjson // only strings and numbers
		_, _ = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", kind, data) // an error means that the server closed the connection
		_ = http.NewResponseController(w).Flush()
	}
	writeEvent("message_start", map[string]any{"message": message})
	writeEvent("content_block_start", map[string]any{"index": 0, "content_block": map[string]string{"type": "text", "text": ""}})
	for word := range strings.SplitAfterSeq(text, " ") {
		writeEvent("content_block_delta", map[string]any{"index": 0, "delta": map[string]string{"type": "text_delta", "text": word}})
		if !client.Sleep(ctx, wordDelay) {
			return
		}
	}
	writeEvent("content_block_stop", map[string]any{"index": 0})
	writeEvent("message_delta", map[string]any{"delta": map[string]string{"stop_reason": "end_turn"}, "usage": map[string]int{"output_tokens": len(strings.Fields(text))}})
	writeEvent("message_stop", map[string]any{})
}

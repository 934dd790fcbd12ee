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

// wordDelay is the pause between two words that are written: about what a reader follows.
const wordDelay = 40 * time.Millisecond

//go:embed answers.txt
var repliesFile string

// fakeClaude answers as the Claude API does, with what is written in answers.txt.
type fakeClaude struct {
	replies []string
	next    atomic.Uint64
}

func newFakeClaude() *fakeClaude {
	return &fakeClaude{replies: strings.Split(strings.TrimSpace(repliesFile), "\n\n")}
}

// ServeHTTP answers POST /v1/messages, whole or word by word.
func (c *fakeClaude) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Model  string
		Stream bool
	}
	if r.Method != http.MethodPost || r.URL.Path != "/v1/messages" {
		http.NotFound(w, r)
		return
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBodyBytes)).Decode(&asked); err != nil {
		http.Error(w, `{"type":"error","error":{"type":"invalid_request_error","message":"it is no JSON"}}`, http.StatusBadRequest)
		return
	}
	n := c.next.Add(1)
	message := map[string]any{
		"id": fmt.Sprintf("msg_%d", n), "type": "message", "role": "assistant", "model": asked.Model, "content": []any{}, "stop_reason": nil,
		"usage": map[string]int{"input_tokens": 1, "output_tokens": 1},
	}
	text := c.replies[(n-1)%uint64(len(c.replies))]
	if asked.Stream {
		streamMessage(r.Context(), w, message, text)
		return
	}
	message["content"] = []any{map[string]string{"type": "text", "text": text}}
	message["stop_reason"] = "end_turn"
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(message) // an error means that the market has hung up
}

// streamMessage writes a message as the events that it comes in.
func streamMessage(ctx context.Context, w http.ResponseWriter, message map[string]any, text string) {
	w.Header().Set("Content-Type", "text/event-stream")
	say := func(kind string, more map[string]any) {
		more["type"] = kind
		data, _ := json.Marshal(more)                                //nolint:errchkjson // it is made of texts and numbers
		_, _ = fmt.Fprintf(w, "event: %s\ndata: %s\n\n", kind, data) // an error means that the market has hung up
		_ = http.NewResponseController(w).Flush()
	}
	say("message_start", map[string]any{"message": message})
	say("content_block_start", map[string]any{"index": 0, "content_block": map[string]string{"type": "text", "text": ""}})
	for word := range strings.SplitAfterSeq(text, " ") {
		say("content_block_delta", map[string]any{"index": 0, "delta": map[string]string{"type": "text_delta", "text": word}})
		if !client.Sleep(ctx, wordDelay) {
			return
		}
	}
	say("content_block_stop", map[string]any{"index": 0})
	say("message_delta", map[string]any{"delta": map[string]string{"stop_reason": "end_turn"}, "usage": map[string]int{"output_tokens": len(strings.Fields(text))}})
	say("message_stop", map[string]any{})
}

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/bench/baseline/graph"
)

// staticHandler serves the benchmark's requests without GraphQL: finished bytes over net/http,
// and one prepared message for all of gorilla's WebSockets. It is an upper bound for
// servers built on these libraries.
type staticHandler struct {
	page      []*graph.Task
	task      [2][]byte // before and after the ID
	list      []byte
	upgrader  websocket.Upgrader
	mu        sync.RWMutex
	listeners map[chan *websocket.PreparedMessage]struct{}
}

func newStaticHandler(page []*graph.Task) (*staticHandler, error) {
	r := &staticHandler{
		page:      page,
		upgrader:  websocket.Upgrader{Subprotocols: []string{"graphql-transport-ws"}},
		listeners: map[chan *websocket.PreparedMessage]struct{}{},
	}
	list, err := json.Marshal(page)
	if err != nil {
		return nil, err
	}
	r.list = fmt.Appendf(nil, `{"data":{"tasks":{"nodes":%s}}}`, list)
	task, err := json.Marshal(page[0])
	if err != nil {
		return nil, err
	}
	before, after, _ := bytes.Cut(task, []byte(page[0].ID))
	r.task = [2][]byte{append([]byte(`{"data":{"task":`), before...), append(after, "}}"...)}
	return r, nil
}

func (r *staticHandler) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if request.Method == http.MethodGet {
		r.serveWebSocket(w, request)
		return
	}
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch {
	case bytes.Contains(body, []byte("postTask")):
		err = r.post(w, body)
	case bytes.Contains(body, []byte("tasks(")):
		_, err = w.Write(r.list)
	default:
		_, err = w.Write(bytes.Join([][]byte{r.task[0], quotedAfter(body, `"variables":{"id":"`), r.task[1]}, nil))
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// post publishes a task with the title in body.
func (r *staticHandler) post(w io.Writer, body []byte) error {
	task := *r.page[0]
	task.Title = string(quotedAfter(body, `"title":"`))
	data, err := json.Marshal(task)
	if err != nil {
		return err
	}
	event := fmt.Appendf(nil, `{"id":"1","type":"next","payload":{"data":{"taskPosted":{"cursor":"1","task":%s}}}}`, data)
	message, err := websocket.NewPreparedMessage(websocket.TextMessage, event)
	if err != nil {
		return err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	for listener := range r.listeners {
		listener <- message
	}
	_, err = fmt.Fprintf(w, `{"data":{"postTask":{"task":{"id":%q}}}}`, task.ID)
	return err
}

// serveWebSocket acknowledges connection_init and then sends every event. It treats the
// next message as the subscription.
func (r *staticHandler) serveWebSocket(w http.ResponseWriter, request *http.Request) {
	conn, err := r.upgrader.Upgrade(w, request, nil)
	if err != nil {
		return
	}
	defer conn.Close() //nolint:errcheck // the connection is not used again
	if _, _, err := conn.ReadMessage(); err != nil {
		return
	}
	if err := conn.WriteMessage(websocket.TextMessage, []byte(`{"type":"connection_ack"}`)); err != nil {
		return
	}
	messages := make(chan *websocket.PreparedMessage, 1024)
	r.mu.Lock()
	r.listeners[messages] = struct{}{}
	r.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if _, _, err := conn.ReadMessage(); err != nil {
				return
			}
		}
	}()
	defer func() {
		r.mu.Lock()
		delete(r.listeners, messages)
		r.mu.Unlock()
	}()
	for {
		select {
		case message := <-messages:
			if err := conn.WritePreparedMessage(message); err != nil {
				return
			}
		case <-ended:
			return
		}
	}
}

// quotedAfter returns the text between prefix and the next quote.
func quotedAfter(body []byte, prefix string) []byte {
	_, rest, _ := bytes.Cut(body, []byte(prefix))
	text, _, _ := bytes.Cut(rest, []byte(`"`))
	return text
}

package main

//go:generate go tool -modfile=../../tools/go.mod genqlient

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/Khan/genqlient/graphql"
	"github.com/gorilla/websocket"
)

// client returns a client with the API key of the agent. It retries requests. The server
// executes requests with the same Idempotency-Key only once.
func (w *worker) client(idempotencyKey string) graphql.Client {
	return graphql.NewClient(w.url+"/graphql", retryClient{w.key, idempotencyKey})
}

type retryClient struct{ key, idempotencyKey string }

// Do sends the request until the server responds.
func (s retryClient) Do(r *http.Request) (*http.Response, error) {
	r.Header.Set("X-API-Key", s.key)
	if s.idempotencyKey != "" {
		r.Header.Set("Idempotency-Key", s.idempotencyKey)
	}
	for {
		response, err := (&http.Client{Timeout: time.Minute}).Do(r)
		done := err == nil && response.StatusCode < 500 && response.StatusCode != http.StatusTooManyRequests
		if done || !sleep(r.Context()) {
			return response, err
		}
		if err == nil {
			_ = response.Body.Close()
		}
		r.Body, _ = r.GetBody()
	}
}

// sleep waits a second, and reports whether ctx is still active.
func sleep(ctx context.Context) bool {
	select {
	case <-time.After(time.Second):
		return true
	case <-ctx.Done():
		return false
	}
}

// socket is a WebSocket connection for subscriptions.
type socket struct {
	graphql.WebSocketClient

	conn *websocket.Conn
	errs <-chan error
}

// dial opens a connection with the API key of an agent.
func dial(ctx context.Context, url, key string) (s *socket, err error) {
	s = &socket{}
	s.WebSocketClient = graphql.NewClientUsingWebSocket(strings.Replace(url, "http", "ws", 1)+"/graphql", s,
		graphql.WithConnectionParams(map[string]any{"X-API-Key": key}))
	s.errs, err = s.Start(ctx)
	return s, err
}

// DialContext opens the WebSocket. The server sends a ping every 20 seconds.
func (s *socket) DialContext(ctx context.Context, url string, header http.Header) (graphql.WSConn, error) {
	conn, _, err := websocket.DefaultDialer.DialContext(ctx, url, header)
	if err != nil {
		return nil, err
	}
	s.conn = conn
	extendDeadline := func() error { return conn.SetReadDeadline(time.Now().Add(time.Minute)) }
	pong := conn.PingHandler()
	conn.SetPingHandler(func(data string) error { _ = extendDeadline(); return pong(data) })
	return conn, extendDeadline()
}

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

// client asks with the agent's key. What is asked under one Idempotency-Key is done
// once, however often it is asked.
func (w *worker) client(once string) graphql.Client {
	return graphql.NewClient(w.url+"/graphql", retryClient{w.key, once})
}

type retryClient struct{ key, idempotencyKey string }

// Do asks until the market answers.
func (s retryClient) Do(r *http.Request) (*http.Response, error) {
	r.Header.Set("X-API-Key", s.key)
	if s.idempotencyKey != "" {
		r.Header.Set("Idempotency-Key", s.idempotencyKey)
	}
	for {
		answer, err := (&http.Client{Timeout: time.Minute}).Do(r)
		final := err == nil && answer.StatusCode < 500 && answer.StatusCode != http.StatusTooManyRequests
		if final || !sleep(r.Context()) {
			return answer, err
		}
		if err == nil {
			_ = answer.Body.Close()
		}
		r.Body, _ = r.GetBody()
	}
}

// sleep waits a second, and reports whether ctx has not ended.
func sleep(ctx context.Context) bool {
	select {
	case <-time.After(time.Second):
		return true
	case <-ctx.Done():
		return false
	}
}

// socket is a connection that subscriptions go over.
type socket struct {
	graphql.WebSocketClient

	conn *websocket.Conn
	errs <-chan error
}

// dial opens a connection as an agent.
func dial(ctx context.Context, url, key string) (s *socket, err error) {
	s = &socket{}
	s.WebSocketClient = graphql.NewClientUsingWebSocket(strings.Replace(url, "http", "ws", 1)+"/graphql", s,
		graphql.WithConnectionParams(map[string]any{"X-API-Key": key}))
	s.errs, err = s.Start(ctx)
	return s, err
}

// DialContext opens it. The market pings every 20 seconds.
func (s *socket) DialContext(ctx context.Context, url string, header http.Header) (graphql.WSConn, error) {
	conn, _, err := websocket.DefaultDialer.DialContext(ctx, url, header)
	if err != nil {
		return nil, err
	}
	s.conn = conn
	alive := func() error { return conn.SetReadDeadline(time.Now().Add(time.Minute)) }
	pong := conn.PingHandler()
	conn.SetPingHandler(func(data string) error { _ = alive(); return pong(data) })
	return conn, alive()
}

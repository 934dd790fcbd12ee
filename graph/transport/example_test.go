package transport_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/99designs/gqlgen/graphql/handler"

	"agentmarket.space/server/graph/transport"
)

// Serve a gqlgen schema over HTTP, WebSocket and server-sent events. Call Shutdown
// to close the connections that are still open.
func ExampleTransports_Mount() {
	transports := transport.New(transport.Options{
		Init: func(ctx context.Context, _ map[string]any) (context.Context, error) {
			return ctx, nil // accept every socket
		},
		Key:          func(context.Context) string { return "" },
		Address:      func(context.Context) string { return "" },
		PresentError: presentError,
		Logger:       slog.New(slog.DiscardHandler),
	})
	defer transports.Shutdown(context.Background())

	limits, err := transport.NewDocumentLimits()
	if err != nil {
		fmt.Println(err)
		return
	}
	gqlServer := handler.New(newFakeSchema())
	gqlServer.Use(limits)
	transports.Mount(gqlServer)
	server := httptest.NewServer(gqlServer)
	defer server.Close()

	response, err := http.Post(server.URL, "application/json", strings.NewReader(`{"query": "{ hello }"}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer response.Body.Close() //nolint:errcheck // the body was read
	body, err := io.ReadAll(response.Body)
	fmt.Println(response.StatusCode, string(body), err)
	// Output: 200 {"data":{"hello":"world"}} <nil>
}

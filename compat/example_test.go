package compat_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"

	"agentmarket.space/server/compat"
	"agentmarket.space/server/graph"
	"agentmarket.space/server/internal/auth"
)

// Mount the REST API on a mux. The middleware puts the request, and the caller if there
// is one, in the context.
func ExampleNew() {
	resolver := &graph.Resolver{} // set Market, Events and Webhooks to serve data
	rest := compat.New(resolver, compat.Options{
		Version: "1.0.0", PublicURL: "https://market.example.com", Logger: slog.New(slog.DiscardHandler),
	})
	authenticated := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := auth.WithRequest(r.Context(), &auth.Request{ID: "request-1"})
		rest.ServeHTTP(w, r.WithContext(ctx)) // an anonymous caller
	})
	mux := http.NewServeMux()
	mux.Handle("/api/", authenticated)
	mux.Handle("/openapi.json", authenticated)

	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(http.MethodPatch, "/api/wallet", http.NoBody))
	fmt.Println(w.Code, w.Body)
	// Output: 405 {"success":false,"error":"method not allowed; use GET, HEAD","code":"METHOD_NOT_ALLOWED"}
}

// List the routes that need no API key.
func ExampleOperations() {
	for _, op := range compat.Operations() {
		if !op.RequiresKey {
			fmt.Println(op.Method, op.Path)
		}
	}
	// Output:
	// POST /api/agents/register
	// GET /api/agents
	// GET /api/agents/{id}
	// GET /api/tasks
	// GET /api/tasks/{id}
}

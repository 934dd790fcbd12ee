// Command baseline is the server that the benchmark compares with. It follows the guides of
// gqlgen and gorm, and by default checks no key, moves no credits and stores no event.
//
//	baseline -addr 127.0.0.1:9101                   constant responses
//	baseline -addr 127.0.0.1:9101 -database FILE    stores posted tasks
//	baseline -addr 127.0.0.1:9101 -books FILE       also the poster's credits, an event and a job
//	baseline -addr 127.0.0.1:9101 -raw              finished bytes, no GraphQL
//
// It serves the benchmark's requests of the product's schema on /graphql, and 200 on
// /readyz.
package main

import (
	"flag"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/99designs/gqlgen/graphql/handler"
	"github.com/99designs/gqlgen/graphql/handler/lru"
	"github.com/99designs/gqlgen/graphql/handler/transport"
	"github.com/vektah/gqlparser/v2/ast"

	"agentmarket.space/server/bench/baseline/graph"
)

//go:generate go tool gqlgen generate

func main() {
	var o options
	flag.StringVar(&o.addr, "addr", "127.0.0.1:9101", "address to listen on")
	flag.StringVar(&o.database, "database", "", "SQLite file that posted tasks are kept in; without one they are only announced")
	flag.StringVar(&o.books, "books", "", "the same, with everything that the product stores for a post")
	flag.BoolVar(&o.static, "raw", false, "answer with finished bytes: the upper limit of the libraries below GraphQL")
	flag.Parse()
	if err := serve(o); err != nil {
		slog.Error("baseline stopped", slog.Any("error", err))
		os.Exit(1)
	}
}

type options struct {
	addr, database, books string
	static                bool
}

func serve(o options) error {
	resolver := graph.NewConstantResolver(strings.Repeat("lorem ipsum dolor sit amet ", 8)[:200])
	answers := newGraphQLHandler(resolver)
	switch {
	case o.static:
		raw, err := newStaticHandler(resolver.Page)
		if err != nil {
			return err
		}
		answers = raw
	case o.database != "":
		db, err := openDatabase(o.database, &task{})
		if err != nil {
			return err
		}
		resolver.Store = &store{db: db}
	case o.books != "":
		books, err := openLedgerStore(o.books)
		if err != nil {
			return err
		}
		resolver.Store = books
		answers = withAPIKey(answers)
	}
	mux := http.NewServeMux()
	mux.Handle("/graphql", answers)
	mux.HandleFunc("/readyz", func(http.ResponseWriter, *http.Request) {})
	server := &http.Server{Addr: o.addr, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	return server.ListenAndServe()
}

// withAPIKey adds the API key of a request to its context.
func withAPIKey(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(graph.WithAPIKey(r.Context(), r.Header.Get("X-API-Key"))))
	})
}

// newGraphQLHandler returns gqlgen's handler with its default transports and the query
// cache that its documentation recommends.
func newGraphQLHandler(resolver *graph.Resolver) http.Handler {
	server := handler.New(graph.NewExecutableSchema(graph.Config{Resolvers: resolver}))
	server.AddTransport(transport.Websocket{})
	server.AddTransport(transport.POST{})
	server.SetQueryCache(lru.New[*ast.QueryDocument](1000))
	return server
}

package graph

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/handler"
	"github.com/99designs/gqlgen/graphql/handler/extension"
	"github.com/99designs/gqlgen/graphql/handler/lru"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/tracing"
	"agentmarket.space/server/models"
)

const (
	maxCachedDocuments = 1000
	operationTimeout   = 30 * time.Second
)

// ServerOptions are what a server needs beside its resolvers.
type ServerOptions struct {
	Introspection  bool
	AllowedOrigins []string // of pages on other hosts that may connect
	Keys           *auth.Keys
	// Limit is asked before each operation on a socket, and for each mutation past the
	// first of a document; it may be nil.
	Limit            func(ctx context.Context) error
	Logger           *slog.Logger
	Cache            *Cache            // where queries are answered from memory; may be nil
	TrustedDocuments *TrustedDocuments // the only documents to run; nil runs any
	Meter            Meter             // may be nil
	Tracer           *tracing.Tracer   // may be nil
}

// Server answers GraphQL over HTTP, WebSocket and server-sent events.
type Server struct {
	handler    *handler.Server
	transports *transport.Transports
	hub        *Hub
	schema     *ast.Schema
}

// NewServer makes the server of a resolver. An origin that is none is an error.
func NewServer(r *Resolver, o ServerOptions) (*Server, error) {
	for _, origin := range o.AllowedOrigins {
		if u, err := url.Parse(origin); err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" {
			return nil, fmt.Errorf("allow-origins: %q is not an origin like https://example.com", origin)
		}
	}
	config := generated.Config{Resolvers: r, Directives: generated.DirectiveRoot{Authenticated: authenticated}}
	setComplexity(&config.Complexity)
	schema := generated.NewExecutableSchema(config)
	server := handler.New(schema)
	present := o.countErrors(errorPresenter(o.Logger, o.Introspection))
	server.SetErrorPresenter(present)
	server.SetRecoverFunc(panicHandler(o.Logger))
	server.SetQueryCache(lru.New[*ast.QueryDocument](maxCachedDocuments))
	server.SetParserTokenLimit(transport.MaxTokens)
	if o.TrustedDocuments != nil {
		server.Use(o.TrustedDocuments)
	} else {
		server.Use(extension.AutomaticPersistedQuery{Cache: lru.New[string](maxCachedDocuments)})
	}
	guard, err := transport.NewDocumentLimits()
	if err != nil {
		return nil, err
	}
	server.Use(guard) // after persisted queries, before the limit that it protects
	server.Use(&strictVariables{})
	server.Use(extension.FixedComplexityLimit(maxComplexity))
	if o.Introspection {
		server.Use(extension.Introspection{})
	}
	if o.Tracer != nil {
		server.Use(&tracingExtension{o.Tracer})
	}
	shared, err := NewHub(r.Market, r.Events, schema, o.Logger)
	if err != nil {
		return nil, err
	}
	server.AroundOperations(func(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
		return o.observeOperation(ctx, interceptOperation(ctx, shared, &o, next))
	})
	transports := transport.New(transport.Options{
		Init: connectionInit(o.Keys), BeforeOperation: o.Limit, Key: apiKeyHash, PresentError: present, CheckOrigin: originChecker(o.AllowedOrigins),
		AddHeaders: setReplayedHeader, Cache: o.Cache,
		Address: func(ctx context.Context) string { return auth.RequestFrom(ctx).Address }, Logger: o.Logger,
	})
	transports.Mount(server)
	return &Server{handler: server, transports: transports, hub: shared, schema: schema.Schema()}, nil
}

// ServeHTTP answers a request of any kind.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// CloseKey ends the sockets that an API key opened.
func (s *Server) CloseKey(key auth.KeyHash) { s.transports.CloseKey(hex.EncodeToString(key[:])) }

// Connections returns how many sockets and streams are open.
func (s *Server) Connections() int { return s.transports.Connections() }

// ConnectionsCutOff returns how many of those were ended because their clients did not read.
func (s *Server) ConnectionsCutOff() int64 { return s.transports.ConnectionsCutOff() }

// Shutdown ends all sockets and streams and waits for them until ctx ends.
func (s *Server) Shutdown(ctx context.Context) {
	s.transports.Shutdown(ctx)
	s.hub.Wait(ctx)
}

// authenticated lets a field be reached with an API key only.
func authenticated(ctx context.Context, _ any, next graphql.Resolver) (any, error) {
	if _, err := auth.Require(ctx); err != nil {
		return nil, err
	}
	return next(ctx)
}

// interceptOperation bounds how long a query or mutation takes, counts each mutation as a request
// of its own, and refuses an Idempotency-Key for a document with several: one key is
// for one effect.
func interceptOperation(ctx context.Context, shared *Hub, o *ServerOptions, next graphql.OperationHandler) graphql.ResponseHandler {
	operation := graphql.GetOperationContext(ctx)
	switch operation.Operation.Operation {
	case ast.Mutation:
		if err := o.checkMutations(ctx, countMutations(operation)); err != nil {
			return graphql.OneShot(&graphql.Response{Errors: gqlerror.List{PresentError(ctx, err)}})
		}
	case ast.Query:
		return o.Cache.InterceptOperation(ctx, func(ctx context.Context) graphql.ResponseHandler { return runQuery(ctx, next) })
	case ast.Subscription:
		return shared.InterceptOperation(ctx, next)
	}
	return next(ctx)
}

// checkMutations refuses a document with so many mutations that may not run.
func (o *ServerOptions) checkMutations(ctx context.Context, mutations int) error {
	if mutations > 1 && auth.RequestFrom(ctx).IdempotencyKey != "" {
		return models.Errorf(models.InvalidInput, "a document with an Idempotency-Key must have one mutation")
	}
	if o.Limit == nil {
		return nil
	}
	for range mutations - 1 { // the first is the request, which was counted
		if err := o.Limit(ctx); err != nil {
			return err
		}
	}
	return nil
}

// countMutations is how many effects a document asks for, in fragments or not.
func countMutations(operation *graphql.OperationContext) (n int) {
	for _, field := range graphql.CollectFields(operation, operation.Operation.SelectionSet, []string{"Mutation"}) {
		if field.Name != "__typename" {
			n++
		}
	}
	return n
}

// runQuery runs a query under the time limit, with what it loads kept for as long
// as it runs. Mutations have their own limit: a hire takes as long as its agent
// may.
func runQuery(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
	ctx, cancel := context.WithTimeout(withLoaders(ctx), operationTimeout)
	responses := next(ctx)
	return func(context.Context) *graphql.Response {
		defer cancel()
		return responses(ctx)
	}
}

// panicHandler logs a panic of a resolver with its stack and shows nothing of it.
func panicHandler(logger *slog.Logger) graphql.RecoverFunc {
	return func(ctx context.Context, panicked any) error {
		stack := make([]byte, 8<<10)
		logger.ErrorContext(ctx, "panic in a resolver", slog.Any("panic", panicked),
			slog.String("stack", string(stack[:runtime.Stack(stack, false)])))
		return errors.New("a resolver panicked")
	}
}

// connectionInit reads the API key of a socket: from the payload of its init
// message, or else from the request that opened it.
func connectionInit(keys *auth.Keys) func(context.Context, map[string]any) (context.Context, error) {
	return func(ctx context.Context, payload map[string]any) (context.Context, error) {
		opening := auth.RequestFrom(ctx) // its Idempotency-Key would be one for all operations of the socket
		ctx = auth.WithRequest(tracing.WithoutSpan(ctx), &auth.Request{ID: opening.ID, Address: opening.Address})
		for _, name := range []string{"X-API-Key", "x-api-key", "apiKey"} {
			if key, ok := payload[name].(string); ok && key != "" {
				actor, err := keys.Authenticate(ctx, key)
				if err != nil {
					return nil, err
				}
				return auth.WithActor(ctx, actor), nil
			}
		}
		return ctx, nil
	}
}

// setReplayedHeader says in a header that an answer was kept from an earlier request.
func setReplayedHeader(ctx context.Context, h http.Header) {
	if auth.RequestFrom(ctx).Replayed.Load() {
		h.Set("Idempotency-Replayed", "true")
	}
}

func apiKeyHash(ctx context.Context) string {
	actor, ok := auth.FromContext(ctx)
	if !ok {
		return ""
	}
	return hex.EncodeToString(actor.KeyHash[:])
}

// originChecker lets programs connect, and pages of the server's own host and of
// the origins that were allowed.
func originChecker(origins []string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		origin := r.Header.Get("Origin")
		if origin == "" || slices.Contains(origins, origin) {
			return true
		}
		u, err := url.Parse(origin)
		return err == nil && strings.EqualFold(u.Host, r.Host)
	}
}

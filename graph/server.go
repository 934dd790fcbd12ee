package graph

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"runtime"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/handler"
	"github.com/99designs/gqlgen/graphql/handler/extension"
	"github.com/99designs/gqlgen/graphql/handler/lru"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/graph/cache"
	"agentmarket.space/server/graph/fanout"
	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/tracing"
	"agentmarket.space/server/models"
)

const (
	maxCachedDocuments = 1000
	operationTimeout   = 30 * time.Second
)

// ServerOptions configures a Server.
type ServerOptions struct {
	Introspection bool
	// CheckOrigin reports whether the web page that sends a request may open a socket. If
	// it is nil, only pages of the request's own host may.
	CheckOrigin func(r *http.Request) bool
	Keys        *auth.Keys
	// Limit is called before each operation on a socket, and for each mutation of a
	// document after the first. It may be nil.
	Limit            func(ctx context.Context) error
	Logger           *slog.Logger
	Cache            *cache.Cache      // response cache of queries; may be nil
	TrustedDocuments *TrustedDocuments // the only documents that may run; nil allows all
	Meter            Meter             // may be nil
	Tracer           *tracing.Tracer   // may be nil
}

// Server serves GraphQL over HTTP, WebSocket and server-sent events.
type Server struct {
	handler    *handler.Server
	transports *transport.Transports
	hub        *fanout.Hub
	schema     *ast.Schema
}

// NewServer returns a server for a resolver.
func NewServer(r *Resolver, o ServerOptions) (*Server, error) {
	config := generated.Config{Resolvers: r, Directives: generated.DirectiveRoot{Authenticated: authenticated}}
	setComplexity(&config.Complexity)
	schema := newExecutableSchema(config)
	server := handler.New(schema)
	present := o.countErrors(errorPresenter(o.Logger, o.Introspection))
	server.SetErrorPresenter(present)
	server.SetRecoverFunc(panicHandler(o.Logger))
	server.SetQueryCache(lru.New[*ast.QueryDocument](maxCachedDocuments))
	server.SetParserTokenLimit(transport.MaxTokens)
	server.SetValidationRulesFn(validationRules)
	if o.TrustedDocuments != nil {
		server.Use(o.TrustedDocuments)
	} else {
		server.Use(extension.AutomaticPersistedQuery{Cache: lru.New[string](maxCachedDocuments)})
	}
	documentLimits, err := transport.NewDocumentLimits()
	if err != nil {
		return nil, err
	}
	server.Use(documentLimits) // after persisted queries, before the complexity limit that it protects
	server.Use(&strictVariables{})
	server.Use(extension.FixedComplexityLimit(maxComplexity))
	if o.Introspection {
		server.Use(extension.Introspection{})
	}
	if o.Tracer != nil {
		server.Use(&tracingExtension{o.Tracer})
	}
	hub, err := fanout.New(fanout.Options{
		Market: r.Market, Log: r.Events, Schema: schema, Interests: r.interests(), RenderTimeout: operationTimeout,
		PresentError: errorPresenter(o.Logger, true), RecoverPanic: panicHandler(o.Logger),
	})
	if err != nil {
		return nil, err
	}
	server.AroundOperations(func(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
		return o.observeOperation(ctx, interceptOperation(ctx, hub, &o, next))
	})
	transports := transport.New(transport.Options{
		Init: connectionInit(o.Keys, r.Market), BeforeOperation: o.Limit, Key: apiKeyHash, PresentError: present, CheckOrigin: o.CheckOrigin,
		AddHeaders: setReplayedHeader, Cache: o.Cache,
		Address: func(ctx context.Context) string { return auth.RequestFrom(ctx).Address }, Logger: o.Logger,
	})
	transports.Mount(server)
	return &Server{handler: server, transports: transports, hub: hub, schema: schema.Schema()}, nil
}

// ServeHTTP serves a request over any transport.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// CloseKey closes the sockets and streams that were opened with an API key.
func (s *Server) CloseKey(key auth.KeyHash) { s.transports.CloseKey(hex.EncodeToString(key[:])) }

// Connections returns the number of open sockets and streams.
func (s *Server) Connections() int { return s.transports.Connections() }

// ConnectionsCutOff returns the number of sockets and streams that were closed because
// the client did not read.
func (s *Server) ConnectionsCutOff() int64 { return s.transports.ConnectionsCutOff() }

// Shutdown closes all sockets and streams and waits until they have ended or ctx is done.
func (s *Server) Shutdown(ctx context.Context) {
	s.transports.Shutdown(ctx)
	s.hub.Wait(ctx)
}

// interceptOperation serves queries from the cache, checks the limits of mutations and
// passes subscriptions to the hub.
func interceptOperation(ctx context.Context, hub *fanout.Hub, o *ServerOptions, next graphql.OperationHandler) graphql.ResponseHandler {
	operation := graphql.GetOperationContext(ctx)
	refuse := func(err error) graphql.ResponseHandler {
		return graphql.OneShot(&graphql.Response{Errors: gqlerror.List{PresentError(ctx, err)}})
	}
	if actor, ok := auth.ReplacedFrom(ctx); ok {
		if !isKeyRotation(operation) {
			return refuse(auth.UnknownKeyError())
		}
		ctx = auth.WithActor(ctx, actor)
	}
	switch operation.Operation.Operation {
	case ast.Mutation:
		withKey, err := withIdempotencyKey(ctx, operation.Extensions)
		if err == nil {
			err = o.checkMutations(withKey, countMutations(operation))
		}
		if err != nil {
			return refuse(err)
		}
		return markReplayed(operation.Extensions, next(database.WithReadBudget(withKey)))
	case ast.Query:
		return o.Cache.InterceptOperation(ctx, func(ctx context.Context) graphql.ResponseHandler { return runQuery(ctx, next) })
	case ast.Subscription:
		return hub.InterceptOperation(ctx, next)
	}
	return next(ctx)
}

// checkMutations rejects an Idempotency-Key for several mutations, because a key stands
// for one effect, and counts each mutation as a request for the rate limit.
func (o *ServerOptions) checkMutations(ctx context.Context, mutations int) error {
	if mutations > 1 && auth.RequestFrom(ctx).IdempotencyKey != "" {
		return models.Errorf(models.InvalidInput, "a document with an Idempotency-Key must have one mutation")
	}
	if o.Limit == nil {
		return nil
	}
	for range mutations - 1 { // the request itself was counted already
		if err := o.Limit(ctx); err != nil {
			return err
		}
	}
	return nil
}

// countMutations returns the number of root fields of a mutation, including those in
// fragments.
func countMutations(operation *graphql.OperationContext) (n int) {
	for _, field := range graphql.CollectFields(operation, operation.Operation.SelectionSet, []string{"Mutation"}) {
		if field.Name != "__typename" {
			n++
		}
	}
	return n
}

// runQuery runs a query with a timeout, limited store time and its own loaders. Mutations have other
// limits: a hire may take as long as the agent's deadline.
func runQuery(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
	ctx, cancel := context.WithTimeout(database.WithReadBudget(withLoaders(ctx)), operationTimeout)
	responses := next(ctx)
	return func(context.Context) *graphql.Response {
		defer cancel()
		return responses(ctx)
	}
}

// panicHandler logs the panic of a resolver with its stack. Clients get none of it.
func panicHandler(logger *slog.Logger) graphql.RecoverFunc {
	return func(ctx context.Context, panicked any) error {
		stack := make([]byte, 8<<10)
		logger.ErrorContext(ctx, "resolver panicked", slog.Any("panic", panicked),
			slog.String("stack", string(stack[:runtime.Stack(stack, false)])))
		return errors.New("a resolver panicked")
	}
}

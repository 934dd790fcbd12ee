package transport_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/handler"
	"github.com/99designs/gqlgen/graphql/handler/extension"
	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// fakeSchema is a schema with one operation for each situation that the tests need. It
// executes the first field of an operation only.
type fakeSchema struct {
	schema   *ast.Schema
	onChange func()               // called by the mutation change; may be nil
	started  chan struct{}        // receives when a stuck mutation starts
	unblock  chan struct{}        // closed to end stuck mutations
	sources  chan *scriptedSource // the sources of new subscriptions to scripted
}

const fakeSchemaSDL = `
	type Query { hello: String! echo(text: String): String self: Query! panic: String wait: String }
	type Mutation { change: String! stuck: String! }
	type Subscription {
		"The numbers from 0 to count-1."
		numbers(count: Int!): Int!
		"No events."
		silence: Int!
		"Strings of 20 kB without end."
		flood: String!
		"One number, then a panic."
		panic: Int!
		"Always FORBIDDEN."
		refused: Int!
		"The commands of a scriptedSource."
		scripted: Int!
		"One string of size bytes."
		large(size: Int!): String!
	}`

func newFakeSchema() *fakeSchema {
	return &fakeSchema{schema: gqlparser.MustLoadSchema(&ast.Source{Input: fakeSchemaSDL}), started: make(chan struct{}, 10), unblock: make(chan struct{}), sources: make(chan *scriptedSource, 1)}
}

func (s *fakeSchema) Schema() *ast.Schema { return s.schema }

func (s *fakeSchema) Complexity(context.Context, string, string, int, map[string]any) (int, bool) {
	return 0, false
}

func (s *fakeSchema) Exec(ctx context.Context) graphql.ResponseHandler {
	operation := graphql.GetOperationContext(ctx)
	field, ok := operation.Operation.SelectionSet[0].(*ast.Field)
	if !ok {
		return graphql.OneShot(graphql.ErrorResponse(ctx, "the operation must start with a field"))
	}
	arguments := field.ArgumentMap(operation.Variables)
	if operation.Operation.Operation == ast.Subscription {
		return subscriptionHandler(ctx, field.Name, arguments)
	}
	switch field.Name {
	case "panic":
		panic("the secret is hunter2")
	case "wait":
		<-ctx.Done()
	case "change":
		if s.onChange != nil {
			s.onChange()
		}
	case "stuck":
		s.started <- struct{}{}
		<-s.unblock
	case "echo":
		return graphql.OneShot(dataResponse("echo", arguments["text"]))
	}
	return graphql.OneShot(dataResponse(field.Name, "world"))
}

func subscriptionHandler(ctx context.Context, name string, arguments map[string]any) graphql.ResponseHandler {
	if name == "refused" {
		graphql.AddError(ctx, models.Errorf(models.Forbidden, "not for you"))
		return nil
	}
	i := -1
	return func(ctx context.Context) *graphql.Response {
		i++
		switch {
		case name == "silence":
			<-ctx.Done()
			return nil
		case name == "large" && i == 0:
			size, err := strconv.Atoi(fmt.Sprint(arguments["size"]))
			if err != nil {
				panic(err)
			}
			return dataResponse(name, strings.Repeat("x", size))
		case name == "large":
			return nil
		case name == "flood":
			return dataResponse(name, strings.Repeat("x", 20_000))
		case name == "panic" && i == 1:
			panic("the secret is hunter2")
		case name == "numbers" && strconv.Itoa(i) == fmt.Sprint(arguments["count"]):
			return nil
		}
		return dataResponse(name, i)
	}
}

func dataResponse(field string, value any) *graphql.Response {
	text, err := json.Marshal(map[string]any{field: value})
	if err != nil {
		panic(err)
	}
	return &graphql.Response{Data: text}
}

func presentError(ctx context.Context, err error) *gqlerror.Error {
	presented := graphql.DefaultErrorPresenter(ctx, err)
	if gqlErr, ok := errors.AsType[*gqlerror.Error](err); !ok || gqlErr.Err != nil {
		domainErr := models.AsError(err)
		presented = &gqlerror.Error{Message: domainErr.Message, Extensions: map[string]any{"code": string(domainErr.Code)}}
	}
	return presented
}

// testServer is a server of the fake schema on a local port.
type testServer struct {
	*httptest.Server
	transports *transport.Transports
	schema     *fakeSchema
}

type apiKeyContextKey struct{}

// startServer serves the fake schema. Init rejects the API key "bad", fails for
// "fault", panics for "panic" and accepts any other key.
func startServer(tb testing.TB, change func(*transport.Options)) *testServer {
	tb.Helper()
	options := transport.Options{
		Init: func(ctx context.Context, payload map[string]any) (context.Context, error) {
			switch key := payload["apiKey"]; key {
			case "bad":
				return nil, models.Errorf(models.Unauthenticated, "unknown API key")
			case "fault":
				return nil, errors.New("the secret is hunter2")
			case "panic":
				panic("the secret is hunter2")
			default:
				return context.WithValue(ctx, apiKeyContextKey{}, key), nil
			}
		},
		Key: func(ctx context.Context) string {
			key, _ := ctx.Value(apiKeyContextKey{}).(string)
			return key
		},
		Address:      func(context.Context) string { return "one" },
		PresentError: presentError,
		CheckOrigin:  func(r *http.Request) bool { return r.Header.Get("Origin") != "https://evil.example" },
		Logger:       slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&options)
	}
	limits, err := transport.NewDocumentLimits()
	testutil.Must(tb, err)
	schema := newFakeSchema()
	gqlServer := handler.New(schema)
	gqlServer.AroundOperations(schema.interceptOperation)
	gqlServer.SetParserTokenLimit(transport.MaxTokens)
	gqlServer.SetErrorPresenter(presentError)
	gqlServer.Use(extension.AutomaticPersistedQuery{Cache: graphql.MapCache[string]{}})
	gqlServer.Use(limits)
	server := &testServer{transports: transport.New(options), schema: schema}
	server.transports.Mount(gqlServer)
	server.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if key := r.Header.Get("X-API-Key"); key != "" {
			ctx = context.WithValue(ctx, apiKeyContextKey{}, key)
		}
		gqlServer.ServeHTTP(w, r.WithContext(ctx))
	}))
	tb.Cleanup(func() {
		server.transports.Shutdown(context.WithoutCancel(tb.Context()))
		server.Close()
	})
	return server
}

// httpResponse is the response to an HTTP request.
type httpResponse struct {
	status int
	header http.Header
	body   string
}

// do sends a request. headers are pairs of name and value.
func (server *testServer) do(t *testing.T, method, query, body string, headers ...string) httpResponse {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, server.URL+"/graphql"+query, strings.NewReader(body))
	testutil.Must(t, err)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := server.Client().Do(request)
	testutil.Must(t, err)
	defer func() { testutil.Must(t, response.Body.Close()) }()
	var text bytes.Buffer
	_, err = text.ReadFrom(response.Body)
	testutil.Must(t, err)
	return httpResponse{response.StatusCode, response.Header, text.String()}
}

// post sends a document by POST.
func (server *testServer) post(t *testing.T, document string, headers ...string) httpResponse {
	t.Helper()
	return server.do(t, http.MethodPost, "", requestBody(document), append([]string{"Content-Type", "application/json"}, headers...)...)
}

func requestBody(document string) string {
	text, err := json.Marshal(map[string]string{"query": document})
	if err != nil {
		panic(err)
	}
	return string(text)
}

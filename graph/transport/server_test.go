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

// fakeSchema is a schema whose operations do what a test of a transport needs. What is
// run is the first field of the operation.
type fakeSchema struct {
	schema  *ast.Schema
	unblock chan struct{} // closed to let stuck mutations end
	// scripts are the sources of subscriptions to handed, as they begin.
	sources chan *scriptedSource
}

const fakeSchemaSDL = `
	type Query { hello: String! echo(text: String): String self: Query! panic: String wait: String }
	type Mutation { change: String! stuck: String! }
	type Subscription {
		"0, 1, 2 and so on: so many, then the end."
		numbers(count: Int!): Int!
		"Nothing, until the client leaves."
		silence: Int!
		"20 kB again and again, until the client leaves."
		flood: String!
		"One number, and then a panic."
		panic: Int!
		"Refused at once."
		refused: Int!
		"What a script says."
		handed: Int!
		"So many bytes, and then the end."
		large(size: Int!): String!
	}`

func newFakeSchema() *fakeSchema {
	return &fakeSchema{schema: gqlparser.MustLoadSchema(&ast.Source{Input: fakeSchemaSDL}), unblock: make(chan struct{}), sources: make(chan *scriptedSource, 1)}
}

func (s *fakeSchema) Schema() *ast.Schema { return s.schema }

func (s *fakeSchema) Complexity(context.Context, string, string, int, map[string]any) (int, bool) {
	return 0, false
}

func (s *fakeSchema) Exec(ctx context.Context) graphql.ResponseHandler {
	operation := graphql.GetOperationContext(ctx)
	field, ok := operation.Operation.SelectionSet[0].(*ast.Field)
	if !ok {
		return graphql.OneShot(graphql.ErrorResponse(ctx, "begin with a field"))
	}
	arguments := field.ArgumentMap(operation.Variables)
	if field.Name == "handed" {
		s.attachSource(ctx)
		return nil
	}
	if operation.Operation.Operation == ast.Subscription {
		return subscriptionHandler(ctx, field.Name, arguments)
	}
	switch field.Name {
	case "panic":
		panic("the secret is hunter2")
	case "wait":
		<-ctx.Done()
	case "stuck":
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
	if known, ok := errors.AsType[*gqlerror.Error](err); !ok || known.Err != nil {
		refusal := models.AsError(err)
		presented = &gqlerror.Error{Message: refusal.Message, Extensions: map[string]any{"code": string(refusal.Code)}}
	}
	return presented
}

// testServer is a server of the toy schema at a real address.
type testServer struct {
	*httptest.Server
	transports *transport.Transports
	schema     *fakeSchema
}

type apiKeyContextKey struct{}

// startServer serves the toy schema. The API key "bad" is refused, "fault" makes the
// look-up fail, "panic" makes it panic; any other is good.
func startServer(tb testing.TB, change func(*transport.Options)) *testServer {
	tb.Helper()
	options := transport.Options{
		Init: func(ctx context.Context, payload map[string]any) (context.Context, error) {
			switch key := payload["apiKey"]; key {
			case "bad":
				return nil, models.Errorf(models.Unauthenticated, "the API key is not known")
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
	guard, err := transport.NewDocumentLimits()
	testutil.Must(tb, err)
	schema := newFakeSchema()
	server := handler.New(schema)
	server.SetParserTokenLimit(transport.MaxTokens)
	server.SetErrorPresenter(presentError)
	server.Use(extension.AutomaticPersistedQuery{Cache: graphql.MapCache[string]{}})
	server.Use(guard)
	d := &testServer{transports: transport.New(options), schema: schema}
	d.transports.Mount(server)
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		if key := r.Header.Get("X-API-Key"); key != "" {
			ctx = context.WithValue(ctx, apiKeyContextKey{}, key)
		}
		server.ServeHTTP(w, r.WithContext(ctx))
	}))
	tb.Cleanup(func() {
		d.transports.Shutdown(context.WithoutCancel(tb.Context()))
		d.Close()
	})
	return d
}

// httpResponse is what an HTTP request came back with.
type httpResponse struct {
	status int
	header http.Header
	body   string
}

// do sends a request. Headers are pairs of name and value.
func (d *testServer) do(t *testing.T, method, query, body string, headers ...string) httpResponse {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, d.URL+"/graphql"+query, strings.NewReader(body))
	testutil.Must(t, err)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := d.Client().Do(request)
	testutil.Must(t, err)
	defer func() { testutil.Must(t, response.Body.Close()) }()
	var text bytes.Buffer
	_, err = text.ReadFrom(response.Body)
	testutil.Must(t, err)
	return httpResponse{response.StatusCode, response.Header, text.String()}
}

// post sends a document.
func (d *testServer) post(t *testing.T, document string, headers ...string) httpResponse {
	t.Helper()
	return d.do(t, http.MethodPost, "", requestBody(document), append([]string{"Content-Type", "application/json"}, headers...)...)
}

func requestBody(document string) string {
	text, err := json.Marshal(map[string]string{"query": document})
	if err != nil {
		panic(err)
	}
	return string(text)
}

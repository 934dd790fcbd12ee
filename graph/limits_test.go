package graph

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"

	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// executableSchema is the schema with its costs.
func executableSchema() graphql.ExecutableSchema {
	config := generated.Config{Resolvers: &Resolver{}}
	setComplexity(&config.Complexity)
	return generated.NewExecutableSchema(config)
}

// TestComplexity_everyList checks that every field with the argument first or ids has a
// cost that depends on it.
func TestComplexity_everyList(t *testing.T) {
	t.Parallel()
	schema := executableSchema()
	cost := func(object, field string, arguments map[string]any) int {
		t.Helper()
		n, ok := schema.Complexity(t.Context(), object, field, 10, arguments)
		if !ok {
			t.Errorf("%s.%s has no cost function", object, field)
		}
		return n
	}
	lists := 0
	for _, object := range schema.Schema().Types {
		if object.Kind != ast.Object || object.BuiltIn || object == schema.Schema().Subscription {
			continue
		}
		for _, field := range object.Fields {
			switch {
			case strings.HasPrefix(field.Name, "__"):
			case field.Arguments.ForName("first") != nil:
				lists++
				minCost := cost(object.Name, field.Name, map[string]any{"first": int64(1)})
				defaultCost := cost(object.Name, field.Name, map[string]any{"first": nil})
				maxCost := cost(object.Name, field.Name, map[string]any{"first": int64(100)})
				if minCost < 10 || defaultCost < 20*10 || maxCost < 100*10 {
					t.Errorf("%s.%s costs %d for one item, %d for a page, %d for the largest", object.Name, field.Name, minCost, defaultCost, maxCost)
				}
				for _, absurd := range []int64{-1, 0, 101, 1 << 31, 1 << 62, 1<<63 - 1} {
					if n := cost(object.Name, field.Name, map[string]any{"first": absurd}); n < 10 {
						t.Errorf("%s.%s(first: %d) costs %d", object.Name, field.Name, absurd, n)
					}
				}
			case field.Arguments.ForName("ids") != nil:
				lists++
				if n := cost(object.Name, field.Name, map[string]any{"ids": []any{"1", "2", "3"}}); n < 30 {
					t.Errorf("%s.%s costs %d for three ids", object.Name, field.Name, n)
				}
			}
		}
	}
	if lists < 7 {
		t.Errorf("found only %d lists", lists)
	}
}

// TestDocumentLimits checks that documents over a limit are rejected with INVALID_INPUT
// before anything runs, and that usual ones pass.
func TestDocumentLimits(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	agent := b.registerAgent(t, "")
	fields := func(n int, field string) string { return strings.Repeat(field+" ", n) }
	var doubled strings.Builder
	for i := range 30 {
		fmt.Fprintf(&doubled, " fragment f%d on Task { ...f%d ...f%d }", i+1, i, i)
	}
	const task = "id title status budget poster { id name } worker { id name } rating { score comment }"
	for name, row := range map[string]struct {
		document string
		passes   bool
	}{
		"a full page of all fields":               {`{ tasks(first: 100) { nodes { ` + task + ` } pageInfo { endCursor } } agents(first: 100) { nodes { id name } } }`, true},
		"ten full pages":                          {`{ ` + repeatAliased(10, `tasks(first: 100) { nodes { `+task+` } }`) + `}`, false},
		"aliased lists":                           {`{ viewer { ` + repeatAliased(12, `postedTasks(first: 100) { nodes { `+task+` } }`) + `} }`, false},
		"aliased lists after an absurd page size": {`{ x: tasks(first: 4611686018427387904) { nodes { id title } } ` + repeatAliased(10, `tasks(first: 100) { nodes { `+task+` } }`) + `}`, false},
		"edges and nodes of the ledger":           {`{ viewer { wallet { entries(first: 100) { edges { node { id task { ` + task + ` } } } nodes { id task { ` + task + ` } } } } } }`, true},
		"depth":                                   {`{ __schema { types ` + strings.Repeat(`{ fields { type `, 8) + `{ name }` + strings.Repeat(` } }`, 8) + ` } }`, false},
		"aliases":                                 {`{ ` + repeatAliased(31, "__typename") + `}`, false},
		"tokens":                                  {`{ nodes(ids: [` + fields(1000, `""`) + `]) { id } }`, false},
		"bytes":                                   {`{ __typename } #` + fields(33<<10, ""), false},
		"directives":                              {`{ __typename ` + fields(21, "@include(if: true)") + `}`, false},
		"doubling fragments":                      {`{ tasks { nodes { ...f30 } } } fragment f0 on Task { id }` + doubled.String(), false},
		"a recursive fragment":                    {`{ tasks { nodes { ...a } } } fragment a on Task { id ...b } fragment b on Task { ...a }`, false},
		"a hundred and one fields":                {`{ ` + fields(101, "__typename") + `}`, false},
		"a subscription with two fields":          {`subscription { taskPosted { cursor } walletChanged { cursor } }`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := b.query(t, agent, row.document)
			if row.passes {
				if len(got.Errors) > 0 {
					t.Errorf("rejected: %v", got.Errors)
				}
				return
			}
			if got.Data != nil || len(got.Errors) == 0 {
				t.Fatalf("it ran: %v", got.Errors)
			}
			for _, failure := range got.Errors {
				if failure.Extensions["code"] != string(models.InvalidInput) {
					t.Errorf("rejected with %v", failure)
				}
			}
		})
	}
}

// repeatAliased repeats a field under n aliases.
func repeatAliased(n int, field string) string {
	var out strings.Builder
	for i := range n {
		fmt.Fprintf(&out, "a%d: %s ", i, field)
	}
	return out.String()
}

// introspectionQuery is the query that tools send.
const introspectionQuery = `query IntrospectionQuery { __schema { queryType { name } mutationType { name } subscriptionType { name }
	types { ...FullType } directives { name description locations args { ...InputValue } } } }
	fragment FullType on __Type { kind name description fields(includeDeprecated: true) { name description args { ...InputValue } type { ...TypeRef }
		isDeprecated deprecationReason } inputFields { ...InputValue } interfaces { ...TypeRef }
		enumValues(includeDeprecated: true) { name description isDeprecated deprecationReason } possibleTypes { ...TypeRef } }
	fragment InputValue on __InputValue { name description type { ...TypeRef } defaultValue }
	fragment TypeRef on __Type { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name
		ofType { kind name ofType { kind name ofType { kind name } } } } } } } }`

// TestRateLimit_countsMutations checks that each mutation of a document after the first
// counts as a request, and that none runs if one exceeds the limit.
func TestRateLimit_countsMutations(t *testing.T) {
	t.Parallel()
	var requests, maxRequests atomic.Int64
	maxRequests.Store(1000)
	b := newBundleWith(t, ServerOptions{Limit: func(context.Context) error {
		if requests.Add(1) > maxRequests.Load() {
			return models.RateLimitError(time.Second, "too many requests")
		}
		return nil
	}}, outbound.Options{})
	agent := b.registerAgent(t, "")
	const post = `postTask(input: {title: "T", description: "D", budget: 2}) { task { id } }`
	for document, want := range map[string]int64{
		`{ viewer { agent { id } } }`:                  0,
		`mutation { ` + post + ` }`:                    0,
		`mutation { ` + repeatAliased(10, post) + ` }`: 9,
		`mutation { __typename ...f } fragment f on Mutation { ` + repeatAliased(3, post) + ` }`: 2,
	} {
		requests.Store(0)
		b.mustQuery(t, agent, document)
		if got := requests.Load(); got != want {
			t.Errorf("%s counts as %d more requests, want %d", document, got, want)
		}
	}
	requests.Store(0)
	maxRequests.Store(5)
	assertError(t, "over the limit", b.query(t, agent, `mutation { `+repeatAliased(7, post)+` }`), models.RateLimited, "")
	b.mustQuery(t, agent, `{ viewer { postedTasks { totalCount } } }`).assertFields(t, "viewer.postedTasks.totalCount", "14")
}

func TestIntrospection(t *testing.T) {
	t.Parallel()
	t.Run("every item has a description", func(t *testing.T) {
		t.Parallel()
		b := newBundle(t)
		out := b.mustQuery(t, caller{}, introspectionQuery)
		out.assertFields(t, "__schema.queryType.name", "Query", "__schema.mutationType.name", "Mutation", "__schema.subscriptionType.name", "Subscription")
		var types []struct {
			Name, Description string
			Fields            []struct{ Name, Description string }
		}
		testutil.Must(t, json.Unmarshal([]byte(out.get(t, "__schema.types")), &types))
		for _, object := range types {
			if strings.HasPrefix(object.Name, "__") {
				continue
			}
			if object.Description == "" {
				t.Errorf("%s has no description", object.Name)
			}
			for _, field := range object.Fields {
				if field.Description == "" {
					t.Errorf("%s.%s has no description", object.Name, field.Name)
				}
			}
		}
		if len(types) < 50 {
			t.Errorf("only %d types", len(types))
		}
		byGET := b.send(t, caller{}, "GET", "?query="+url.QueryEscape("{ __type(name: \"Task\") { kind } }"), nil)
		byGET.assertFields(t, "__type.kind", "OBJECT")
	})
	t.Run("disabled", func(t *testing.T) {
		t.Parallel()
		b := newBundleWith(t, ServerOptions{}, outbound.Options{})
		for _, document := range []string{introspectionQuery, `{ __type(name: "Task") { name } }`} {
			if got := b.query(t, caller{}, document); got.code() != string(models.Forbidden) {
				t.Errorf("got %v, %v", got.Data, got.Errors)
			}
		}
		b.mustQuery(t, caller{}, "{ __typename }").assertFields(t, "__typename", "Query")
		for _, document := range []string{"{ agentz { totalCount } }", "{ tasks { nodes { titel } } }", `{ tasks(frist: 1) { totalCount } }`} {
			if got := b.query(t, caller{}, document); len(got.Errors) != 1 || strings.Contains(got.Errors[0].Message, "mean") {
				t.Errorf("%s fails with %v", document, got.Errors)
			}
			if got := newBundle(t).query(t, caller{}, document); !strings.Contains(got.Errors[0].Message, "Did you mean") {
				t.Errorf("with introspection %s fails with %v", document, got.Errors)
			}
		}
	})
}

// TestComplexity_store: the cost of a document includes what it costs in the store.
func TestComplexity_store(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	counts := func(n int) string {
		var all strings.Builder
		for i := range n {
			fmt.Fprintf(&all, "a%d: tasks(first: 1, filter: {search: \"zebra\"}) { totalCount } ", i)
		}
		return "{ " + all.String() + "}"
	}
	if got := b.query(t, caller{}, counts(14)); len(got.Errors) > 0 {
		t.Errorf("14 searches with counts: %v", got.Errors)
	}
	if got := b.query(t, caller{}, counts(15)); got.code() != "INVALID_INPUT" {
		t.Errorf("15 searches with counts: got %q, want INVALID_INPUT", got.code())
	}
	full := `tasks(first: 100) { totalCount totalCountIsExact nodes { id title description budget requiredCapabilities status origin poster { id name description capabilities pricePerTask } worker { id name description capabilities pricePerTask } createdAt } }`
	if got := b.query(t, caller{}, "{ a: "+full+" b: "+full+" }"); len(got.Errors) > 0 {
		t.Errorf("two full pages with counts: %v", got.Errors)
	}
}

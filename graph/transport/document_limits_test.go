package transport_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/introspection"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"

	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/test/testutil"
)

// doublingFragments returns a short document with 2^depth fields: each fragment
// spreads the next one twice.
func doublingFragments(depth int) string {
	var text strings.Builder
	text.WriteString("{ ...f0 }")
	for i := range depth {
		fmt.Fprintf(&text, " fragment f%d on Query { ...f%d ...f%d }", i, i+1, i+1)
	}
	fmt.Fprintf(&text, " fragment f%d on Query { hello }", depth)
	return text.String()
}

// TestDocumentLimits tests documents of attackers and of regular clients. An empty
// wantErr means that the document is accepted.
func TestDocumentLimits(t *testing.T) {
	t.Parallel()
	everyOption := introspection.NewQuery(introspection.QueryOptions{OneOf: true})
	for name, tt := range map[string]struct{ document, wantErr string }{
		"plain query":                           {"{ hello }", ""},
		"introspection query":                   {introspection.Query, ""},
		"introspection query, all options":      {everyOption, ""},
		"syntax error":                          {"{", ""},
		"fragment cycle, left to validation":    {"{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }", ""},
		"fragment that spreads itself":          {"{ ...a } fragment a on Query { ...a ...a }", ""},
		"unknown fragment":                      {"{ ...a }", ""},
		"100 fields":                            {"{" + strings.Repeat("hello ", 100) + "}", ""},
		"too many tokens, left to the executor": {"{" + strings.Repeat("hello ", 20_000/8) + "}", ""},
		"101 fields":                            {"{" + strings.Repeat("hello ", 101) + "}", "fields in one selection exceeds 100"},
		"101 fragment spreads":                  {"{" + strings.Repeat("...a ", 101) + "} fragment a on Query { hello }", "fields in one selection exceeds 100"},
		"too many bytes":                        {"{" + strings.Repeat("hello ", 20_000) + "}", "exceed the limit of 32768"},
		"30 aliases":                            {"{" + aliasedFields(30) + "}", ""},
		"31 aliases":                            {"{" + aliasedFields(31) + "}", "aliases exceeds 30"},
		"aliases in fragments":                  {"{ ...a ...b } fragment a on Query {" + aliasedFields(16) + "} fragment b on Query {" + aliasedFields(16) + "}", "aliases exceeds 30"},
		"20 directives":                         {"{ hello" + strings.Repeat(" @skip(if: false)", 20) + "}", ""},
		"21 directives":                         {"{ hello" + strings.Repeat(" @a", 21) + "}", "directives exceeds 20"},
		"directives on fragments and spreads":   {"query" + strings.Repeat(" @a", 7) + "{ ...b" + strings.Repeat(" @a", 7) + " } fragment b on Query" + strings.Repeat(" @a", 7) + " { hello }", "directives exceeds 20"},
		"directives on an inline fragment":      {"{ ..." + strings.Repeat(" @a", 21) + "{ hello } }", "directives exceeds 20"},
		"depth 15":                              {nestedFields(15), ""},
		"depth 16":                              {nestedFields(16), "depth exceeds 15"},
		"depth 16 through a fragment":           {"{ ...a } fragment a on Query " + nestedFields(16), "depth exceeds 15"},
		"51 fragments":                          {"{ hello }" + strings.Repeat(" fragment a on Query { hello }", 51), "51 fragments exceed the limit of 50"},
		"doubled fragments, 11 deep":            {doublingFragments(11), ""},
		"doubled fragments, 26 deep":            {doublingFragments(26), "number of fields exceeds 5000"},
		"doubled fragments, 48 deep":            {doublingFragments(48), "number of fields exceeds 5000"},
		"doubled fragments in an operation that is not executed": {
			"query a { hello } query b " + doublingFragments(26), "number of fields exceeds 5000",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limits, err := transport.NewDocumentLimits()
			testutil.Must(t, err)
			start := time.Now()
			for range 2 { // the second result may be cached
				limitErr := limits.MutateOperationParameters(t.Context(), &graphql.RawParams{Query: tt.document})
				switch {
				case tt.wantErr == "" && limitErr != nil:
					t.Errorf("unexpected error: %s", limitErr.Message)
				case tt.wantErr != "" && (limitErr == nil || !strings.Contains(limitErr.Message, tt.wantErr)):
					t.Errorf("got error %v, want %s", limitErr, tt.wantErr)
				}
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("measuring took %s", took)
			}
		})
	}
}

func aliasedFields(n int) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "a%d: hello ", i)
	}
	return text.String()
}

func nestedFields(depth int) string {
	return strings.Repeat("{ self ", depth-1) + "{ hello }" + strings.Repeat(" }", depth-1)
}

// TestDocumentLimits_rejectsQuickly sends documents over HTTP that would take seconds
// to validate.
func TestDocumentLimits_rejectsQuickly(t *testing.T) {
	t.Parallel()
	server := startServer(t, nil)
	for name, document := range map[string]string{
		"doubled fragments": doublingFragments(26),
		"20000 fields":      "{" + strings.Repeat("hello ", 20_000) + "}",
		"1000 tokens":       "{" + strings.Repeat("hello ", 2_000) + "}",
		"20000 directives":  "{ hello" + strings.Repeat(" @aa", 20_000) + "}",
		"fragment cycles":   "{ ...a } fragment a on Query { ...b ...b } fragment b on Query { ...a ...a }",
		"10000 levels":      strings.Repeat("{self", 5_000),
		"unknown fields":    "{" + strings.Repeat("nothing ", 99) + "}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			got := server.post(t, document)
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("the request took %s", took)
			}
			if !strings.HasPrefix(got.body, `{"errors":[`) || len(got.body) > 32<<10 {
				t.Errorf("got %d bytes: %.200s", len(got.body), got.body)
			}
		})
	}
}

// FuzzDocumentLimits measures any document. Measuring does not panic, and an accepted
// document has at most 5000 fields.
func FuzzDocumentLimits(f *testing.F) {
	for _, document := range []string{
		"{ hello }", introspection.Query, doublingFragments(11), doublingFragments(13), nestedFields(16), "{ ...a } fragment a on Query { ...a }",
		"query($a: Int = 1) @x { a: b(c: $a) @skip(if: true) { ... on D { e } } }", "subscription { a } mutation { b }",
	} {
		f.Add(document)
	}
	limits, err := transport.NewDocumentLimits()
	testutil.Must(f, err)
	f.Fuzz(func(t *testing.T, text string) {
		if limits.MutateOperationParameters(t.Context(), &graphql.RawParams{Query: text}) != nil {
			return
		}
		document, err := parser.ParseQueryWithTokenLimit(&ast.Source{Input: text}, transport.MaxTokens)
		if err != nil {
			return
		}
		for _, operation := range document.Operations {
			if n := countFields(document, operation.SelectionSet, 0, 6000); n > 5000 {
				t.Errorf("a document with %d fields was accepted", n)
			}
		}
	})
}

// countFields counts fields without caching, up to maxFields. It counts fragments of a
// cycle once, because validation rejects cycles.
func countFields(document *ast.QueryDocument, set ast.SelectionSet, fields, maxFields int, inside ...string) int {
	for _, selection := range set {
		if fields > maxFields {
			break
		}
		switch s := selection.(type) {
		case *ast.Field:
			fields = countFields(document, s.SelectionSet, fields+1, maxFields, inside...)
		case *ast.InlineFragment:
			fields = countFields(document, s.SelectionSet, fields, maxFields, inside...)
		case *ast.FragmentSpread:
			definition := document.Fragments.ForName(s.Name)
			if definition != nil && !strings.Contains(strings.Join(inside, " ")+" ", s.Name+" ") {
				fields = countFields(document, definition.SelectionSet, fields, maxFields, append(inside, s.Name)...)
			}
		}
	}
	return fields
}

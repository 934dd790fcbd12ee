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

// doublingFragments is a document of few bytes and 2^depth fields: each fragment spreads
// the next one twice.
func doublingFragments(depth int) string {
	var text strings.Builder
	text.WriteString("{ ...f0 }")
	for i := range depth {
		fmt.Fprintf(&text, " fragment f%d on Query { ...f%d ...f%d }", i, i+1, i+1)
	}
	fmt.Fprintf(&text, " fragment f%d on Query { hello }", depth)
	return text.String()
}

// TestDocumentLimits measures documents as attackers and as honest clients write them.
// An empty refusal stands for a document that passes.
func TestDocumentLimits(t *testing.T) {
	t.Parallel()
	everyOption := introspection.NewQuery(introspection.QueryOptions{OneOf: true})
	for name, row := range map[string]struct{ document, refusal string }{
		"a plain query":                      {"{ hello }", ""},
		"the whole schema":                   {introspection.Query, ""},
		"the whole schema, every option":     {everyOption, ""},
		"no GraphQL":                         {"{", ""},
		"a cycle, which validation refuses":  {"{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }", ""},
		"a fragment of itself":               {"{ ...a } fragment a on Query { ...a ...a }", ""},
		"a fragment that is not there":       {"{ ...a }", ""},
		"a hundred fields":                   {"{" + strings.Repeat("hello ", 100) + "}", ""},
		"more tokens than are parsed":        {"{" + strings.Repeat("hello ", 20_000/8) + "}", ""}, // the executor's limit refuses it
		"one field too many":                 {"{" + strings.Repeat("hello ", 101) + "}", "fields in one selection is over 100"},
		"one fragment too many spread":       {"{" + strings.Repeat("...a ", 101) + "} fragment a on Query { hello }", "fields in one selection is over 100"},
		"more bytes than are looked at":      {"{" + strings.Repeat("hello ", 20_000) + "}", "at most 32768 are allowed"},
		"thirty aliases":                     {"{" + aliasedFields(30) + "}", ""},
		"one alias too many":                 {"{" + aliasedFields(31) + "}", "aliases is over 30"},
		"aliases in fragments":               {"{ ...a ...b } fragment a on Query {" + aliasedFields(16) + "} fragment b on Query {" + aliasedFields(16) + "}", "aliases is over 30"},
		"twenty directives":                  {"{ hello" + strings.Repeat(" @skip(if: false)", 20) + "}", ""},
		"one directive too many":             {"{ hello" + strings.Repeat(" @a", 21) + "}", "directives is over 20"},
		"directives on what is spread":       {"query" + strings.Repeat(" @a", 7) + "{ ...b" + strings.Repeat(" @a", 7) + " } fragment b on Query" + strings.Repeat(" @a", 7) + " { hello }", "directives is over 20"},
		"directives on a bare fragment":      {"{ ..." + strings.Repeat(" @a", 21) + "{ hello } }", "directives is over 20"},
		"fifteen deep":                       {nestedFields(15), ""},
		"sixteen deep":                       {nestedFields(16), "depth is over 15"},
		"deep by fragments":                  {"{ ...a } fragment a on Query " + nestedFields(16), "depth is over 15"},
		"fifty-one fragments":                {"{ hello }" + strings.Repeat(" fragment a on Query { hello }", 51), "defines 51 fragments"},
		"doubled fragments, 11 deep":         {doublingFragments(11), ""},
		"doubled fragments, 26 deep":         {doublingFragments(26), "number of fields is over 5000"},
		"doubled fragments, as deep as goes": {doublingFragments(48), "number of fields is over 5000"},
		"doubled fragments in an operation that is not run": {
			"query a { hello } query b " + doublingFragments(26), "number of fields is over 5000",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			guard, err := transport.NewDocumentLimits()
			testutil.Must(t, err)
			began := time.Now()
			for range 2 { // the second time it may be remembered
				refused := guard.MutateOperationParameters(t.Context(), &graphql.RawParams{Query: row.document})
				switch {
				case row.refusal == "" && refused != nil:
					t.Errorf("refused: %s", refused.Message)
				case row.refusal != "" && (refused == nil || !strings.Contains(refused.Message, row.refusal)):
					t.Errorf("the refusal is %v, want %s", refused, row.refusal)
				}
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("it took %s to measure", took)
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

// TestDocumentLimits_rejectsQuickly sends over HTTP the documents that validation and
// weighing would take seconds for.
func TestDocumentLimits_rejectsQuickly(t *testing.T) {
	t.Parallel()
	d := startServer(t, nil)
	for name, document := range map[string]string{
		"doubled fragments":  doublingFragments(26),
		"20000 fields":       "{" + strings.Repeat("hello ", 20_000) + "}",
		"1000 tokens":        "{" + strings.Repeat("hello ", 2_000) + "}",
		"20000 directives":   "{ hello" + strings.Repeat(" @aa", 20_000) + "}",
		"fragments in rings": "{ ...a } fragment a on Query { ...b ...b } fragment b on Query { ...a ...a }",
		"10000 levels":       strings.Repeat("{self", 5_000),
		"unknown fields":     "{" + strings.Repeat("nothing ", 99) + "}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			got := d.post(t, document)
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("it took %s", took)
			}
			if !strings.HasPrefix(got.body, `{"errors":[`) || len(got.body) > 32<<10 {
				t.Errorf("answered with %d bytes: %.200s", len(got.body), got.body)
			}
		})
	}
}

// FuzzDocumentLimits: whatever is written, measuring it neither fails nor hangs, and what
// passes has no more fields than it may have.
func FuzzDocumentLimits(f *testing.F) {
	for _, document := range []string{
		"{ hello }", introspection.Query, doublingFragments(11), doublingFragments(13), nestedFields(16), "{ ...a } fragment a on Query { ...a }",
		"query($a: Int = 1) @x { a: b(c: $a) @skip(if: true) { ... on D { e } } }", "subscription { a } mutation { b }",
	} {
		f.Add(document)
	}
	guard, err := transport.NewDocumentLimits()
	testutil.Must(f, err)
	f.Fuzz(func(t *testing.T, text string) {
		if guard.MutateOperationParameters(t.Context(), &graphql.RawParams{Query: text}) != nil {
			return
		}
		document, err := parser.ParseQueryWithTokenLimit(&ast.Source{Input: text}, transport.MaxTokens)
		if err != nil {
			return
		}
		for _, operation := range document.Operations {
			if n := countFields(document, operation.SelectionSet, 0, 6000); n > 5000 {
				t.Errorf("%d fields pass", n)
			}
		}
	})
}

// countFields counts fields the slow way, up to most. What is in a ring is not
// counted again: validation refuses it.
func countFields(document *ast.QueryDocument, set ast.SelectionSet, fields, most int, inside ...string) int {
	for _, selection := range set {
		if fields > most {
			break
		}
		switch s := selection.(type) {
		case *ast.Field:
			fields = countFields(document, s.SelectionSet, fields+1, most, inside...)
		case *ast.InlineFragment:
			fields = countFields(document, s.SelectionSet, fields, most, inside...)
		case *ast.FragmentSpread:
			definition := document.Fragments.ForName(s.Name)
			if definition != nil && !strings.Contains(strings.Join(inside, " ")+" ", s.Name+" ") {
				fields = countFields(document, definition.SelectionSet, fields, most, append(inside, s.Name)...)
			}
		}
	}
	return fields
}

package graph

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/99designs/gqlgen/graphql"

	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/test/testutil"
)

// TestDocumentedLimits compares the table in docs/api/graphql.md with the limits: a
// document at a limit passes, one over it does not.
func TestDocumentedLimits(t *testing.T) {
	t.Parallel()
	documented := documentedLimits(t)
	limits, err := transport.NewDocumentLimits()
	testutil.Must(t, err)
	for name, document := range map[string]func(n int) string{
		"bytes of a document":     func(n int) string { return "{ task" + strings.Repeat(" ", n-8) + " }" },
		"depth":                   func(n int) string { return strings.Repeat("{ a ", n) + strings.Repeat("}", n) },
		"aliases":                 func(n int) string { return "{" + repeatFormat(n, "b%d: a ") + "}" },
		"directives":              func(n int) string { return "{ a" + repeatFormat(n, " @d%d") + " }" },
		"fields of one selection": func(n int) string { return "{" + repeatFormat(n, "a%d ") + "}" },
		"fragments":               func(n int) string { return "{ a }" + repeatFormat(n, " fragment f%d on Query { a }") },
	} {
		limit := documented[name]
		at := limits.MutateOperationParameters(t.Context(), &graphql.RawParams{Query: document(limit)})
		over := limits.MutateOperationParameters(t.Context(), &graphql.RawParams{Query: document(limit + 1)})
		if limit == 0 || at != nil || over == nil {
			t.Errorf("%s: the documented limit is %d; a document at it fails with %v, one over it with %v", name, limit, at, over)
		}
	}
	for name, limit := range map[string]int{
		"tokens of a document": transport.MaxTokens, "ids of `nodes`": maxNodes, "seconds of a query or mutation": int(operationTimeout / time.Second),
		"cost of an operation: a field costs 1; a list costs its page size times one item, plus up to 710 for its filters and count": maxComplexity,
	} {
		if documented[name] != limit {
			t.Errorf("%s: the documented limit is %d, the actual one %d", name, documented[name], limit)
		}
	}
}

// documentedLimits returns the rows of the table that end with a number.
func documentedLimits(t *testing.T) map[string]int {
	t.Helper()
	page, err := os.ReadFile("../docs/api/graphql.md")
	testutil.Must(t, err)
	limits := map[string]int{}
	for _, row := range regexp.MustCompile(`(?m)^\| (.+) \| (\d+) \|$`).FindAllStringSubmatch(string(page), -1) {
		limits[row[1]], err = strconv.Atoi(row[2])
		testutil.Must(t, err)
	}
	return limits
}

func repeatFormat(n int, form string) string {
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, form, i)
	}
	return text.String()
}

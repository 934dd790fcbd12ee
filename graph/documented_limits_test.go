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

// TestDocumentedLimits holds the table of docs/api/graphql.md to what is let through:
// a document at each limit is, one past it is not.
func TestDocumentedLimits(t *testing.T) {
	t.Parallel()
	documented := documentedLimits(t)
	guard, err := transport.NewDocumentLimits()
	testutil.Must(t, err)
	for what, document := range map[string]func(n int) string{
		"bytes of a document":     func(n int) string { return "{ task" + strings.Repeat(" ", n-8) + " }" },
		"depth":                   func(n int) string { return strings.Repeat("{ a ", n) + strings.Repeat("}", n) },
		"aliases":                 func(n int) string { return "{" + repeatFormat(n, "b%d: a ") + "}" },
		"directives":              func(n int) string { return "{ a" + repeatFormat(n, " @d%d") + " }" },
		"fields of one selection": func(n int) string { return "{" + repeatFormat(n, "a%d ") + "}" },
		"fragments":               func(n int) string { return "{ a }" + repeatFormat(n, " fragment f%d on Query { a }") },
	} {
		most := documented[what]
		at := guard.MutateOperationParameters(t.Context(), &graphql.RawParams{Query: document(most)})
		past := guard.MutateOperationParameters(t.Context(), &graphql.RawParams{Query: document(most + 1)})
		if most == 0 || at != nil || past == nil {
			t.Errorf("%s: documented are %d; that many are refused with %v, one more with %v", what, most, at, past)
		}
	}
	for what, most := range map[string]int{
		"tokens of a document": transport.MaxTokens, "ids of `nodes`": maxNodes, "seconds of a query or mutation": int(operationTimeout / time.Second),
		"cost of an operation: a field costs 1, a list as many times what one item costs": maxComplexity,
	} {
		if documented[what] != most {
			t.Errorf("%s: documented are %d, allowed %d", what, documented[what], most)
		}
	}
}

// documentedLimits are the rows of the table that end with a number.
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

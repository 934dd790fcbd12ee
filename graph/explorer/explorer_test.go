package explorer_test

import (
	"os"
	"testing"

	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
)

// TestExamplesFitTheSchema: what the page shows first must run as it stands.
func TestExamplesFitTheSchema(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../schema.graphqls")
	if err != nil {
		t.Fatal(err)
	}
	schema, err := gqlparser.LoadSchema(&ast.Source{Name: "schema.graphqls", Input: string(text)})
	if err != nil {
		t.Fatal(err)
	}
	examples, err := os.ReadFile("assets/examples.graphql")
	if err != nil {
		t.Fatal(err)
	}
	document, faults := gqlparser.LoadQueryWithRules(schema, string(examples), nil)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if len(document.Operations) == 0 {
		t.Error("there are no examples")
	}
}

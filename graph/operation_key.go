package graph

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
)

// operationKeyFor is the same for operations that render an event alike: their
// document, and the variables that are used beyond the subscription's own
// arguments.
func operationKeyFor(o *graphql.OperationContext) (sum [sha256.Size]byte, ok bool) {
	used := map[string]any{}
	for _, selection := range o.Operation.SelectionSet {
		field, plain := selection.(*ast.Field)
		if !plain || len(field.Directives) > 0 {
			return sum, false
		}
		collectVariables(field.SelectionSet, o.Variables, used)
	}
	variables, err := json.Marshal(used)
	if err != nil {
		return sum, false
	}
	return sha256.Sum256(bytes.Join([][]byte{[]byte(o.RawQuery), []byte(o.OperationName), variables}, []byte{0})), true
}

// collectVariables adds the variables that a selection uses.
func collectVariables(set ast.SelectionSet, values, used map[string]any) {
	for _, selection := range set {
		switch selection := selection.(type) {
		case *ast.Field:
			collectArgumentVariables(selection.Arguments, values, used)
			collectDirectiveVariables(selection.Directives, values, used)
			collectVariables(selection.SelectionSet, values, used)
		case *ast.InlineFragment:
			collectDirectiveVariables(selection.Directives, values, used)
			collectVariables(selection.SelectionSet, values, used)
		case *ast.FragmentSpread:
			collectDirectiveVariables(selection.Directives, values, used)
			collectVariables(selection.Definition.SelectionSet, values, used)
		}
	}
}

func collectDirectiveVariables(directives ast.DirectiveList, values, used map[string]any) {
	for _, directive := range directives {
		collectArgumentVariables(directive.Arguments, values, used)
	}
}

func collectArgumentVariables(arguments ast.ArgumentList, values, used map[string]any) {
	for _, argument := range arguments {
		collectValueVariables(argument.Value, values, used)
	}
}

func collectValueVariables(value *ast.Value, values, used map[string]any) {
	if value.Kind == ast.Variable {
		used[value.Raw] = values[value.Raw]
	}
	for _, child := range value.Children {
		collectValueVariables(child.Value, values, used)
	}
}

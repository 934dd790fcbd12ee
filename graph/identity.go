package graph

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
)

// identity is the same for operations that render an event alike: their
// document, and the variables that are used beyond the subscription's own
// arguments.
func identity(o *graphql.OperationContext) (sum [sha256.Size]byte, ok bool) {
	used := map[string]any{}
	for _, selection := range o.Operation.SelectionSet {
		field, plain := selection.(*ast.Field)
		if !plain || len(field.Directives) > 0 {
			return sum, false
		}
		noteVariables(field.SelectionSet, o.Variables, used)
	}
	variables, err := json.Marshal(used)
	if err != nil {
		return sum, false
	}
	return sha256.Sum256(bytes.Join([][]byte{[]byte(o.RawQuery), []byte(o.OperationName), variables}, []byte{0})), true
}

// noteVariables adds the variables that a selection uses.
func noteVariables(set ast.SelectionSet, values, used map[string]any) {
	for _, selection := range set {
		switch selection := selection.(type) {
		case *ast.Field:
			noteArguments(selection.Arguments, values, used)
			noteDirectives(selection.Directives, values, used)
			noteVariables(selection.SelectionSet, values, used)
		case *ast.InlineFragment:
			noteDirectives(selection.Directives, values, used)
			noteVariables(selection.SelectionSet, values, used)
		case *ast.FragmentSpread:
			noteDirectives(selection.Directives, values, used)
			noteVariables(selection.Definition.SelectionSet, values, used)
		}
	}
}

func noteDirectives(directives ast.DirectiveList, values, used map[string]any) {
	for _, directive := range directives {
		noteArguments(directive.Arguments, values, used)
	}
}

func noteArguments(arguments ast.ArgumentList, values, used map[string]any) {
	for _, argument := range arguments {
		noteValue(argument.Value, values, used)
	}
}

func noteValue(value *ast.Value, values, used map[string]any) {
	if value.Kind == ast.Variable {
		used[value.Raw] = values[value.Raw]
	}
	for _, child := range value.Children {
		noteValue(child.Value, values, used)
	}
}

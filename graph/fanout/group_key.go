package fanout

import (
	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"

	"agentmarket.space/server/graph/operation"
)

// groupKeyFor returns the key of the group that an operation joins. Operations with the
// same key render an event to the same bytes: the key covers the document and the
// variables used below the root field. ok is false for an operation without a group: it
// selects a private field, or has a fragment or a directive at its root.
func groupKeyFor(o *graphql.OperationContext) (key operation.Hash, ok bool) {
	if operation.IsPrivate(o.Operation.SelectionSet) {
		return key, false
	}
	used := map[string]any{}
	for _, selection := range o.Operation.SelectionSet {
		field, isField := selection.(*ast.Field)
		if !isField || len(field.Directives) > 0 {
			return key, false
		}
		collectVariables(field.SelectionSet, o.Variables, used)
	}
	key, err := operation.HashOf(o, used)
	return key, err == nil
}

// collectVariables adds to used the variables that a selection uses.
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

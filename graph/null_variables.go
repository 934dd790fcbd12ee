package graph

import (
	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
)

// firstForbiddenNull returns the name of a variable that is null and that the operation uses
// where null is not allowed, "" for none. Validation accepts such a use if the variable has
// a default, but the caller can send null explicitly.
func firstForbiddenNull(operation *graphql.OperationContext) string {
	f := &nullFinder{nulls: map[string]bool{}, visited: map[string]bool{}}
	for name, value := range operation.Variables {
		if value == nil {
			f.nulls[name] = true
		}
	}
	if len(f.nulls) == 0 {
		return ""
	}
	f.checkDirectives(operation.Operation.Directives)
	f.checkSelection(operation.Operation.SelectionSet)
	return f.found
}

// nullFinder looks for uses of null variables.
type nullFinder struct {
	nulls   map[string]bool
	visited map[string]bool // fragments
	found   string
}

func (f *nullFinder) checkSelection(set ast.SelectionSet) {
	for _, selection := range set {
		switch selection := selection.(type) {
		case *ast.Field:
			f.checkDirectives(selection.Directives)
			f.checkArguments(selection.Arguments)
			f.checkSelection(selection.SelectionSet)
		case *ast.InlineFragment:
			f.checkDirectives(selection.Directives)
			f.checkSelection(selection.SelectionSet)
		case *ast.FragmentSpread:
			f.checkDirectives(selection.Directives)
			if !f.visited[selection.Name] {
				f.visited[selection.Name] = true
				f.checkSelection(selection.Definition.SelectionSet)
			}
		}
	}
}

func (f *nullFinder) checkDirectives(directives ast.DirectiveList) {
	for _, directive := range directives {
		f.checkArguments(directive.Arguments)
	}
}

func (f *nullFinder) checkArguments(arguments ast.ArgumentList) {
	for _, argument := range arguments {
		f.checkValue(argument.Value)
	}
}

func (f *nullFinder) checkValue(value *ast.Value) {
	if value.Kind == ast.Variable && f.nulls[value.Raw] && value.ExpectedType != nil && value.ExpectedType.NonNull {
		f.found = value.Raw
	}
	for _, child := range value.Children {
		f.checkValue(child.Value)
	}
}

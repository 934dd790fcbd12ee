package operation

import (
	"strings"

	"github.com/vektah/gqlparser/v2/ast"
)

// RootField is the root field of an operation and the kind of the operation: query,
// mutation or subscription. It is a metrics label.
type RootField struct{ Kind, Name string }

// MultipleFields is the name for an operation with several root fields, or with none
// besides introspection.
const MultipleFields = "several"

// RootFieldOf returns the root field of a validated operation.
func RootFieldOf(operation *ast.OperationDefinition) RootField {
	name := singleField(operation.SelectionSet, "")
	if name == "" {
		name = MultipleFields
	}
	return RootField{string(operation.Operation), name}
}

// RootFields returns every root field of a schema, and [MultipleFields] of each kind.
func RootFields(schema *ast.Schema) (roots []RootField) {
	for kind, definition := range map[ast.Operation]*ast.Definition{
		ast.Query: schema.Query, ast.Mutation: schema.Mutation, ast.Subscription: schema.Subscription,
	} {
		roots = append(roots, RootField{string(kind), MultipleFields})
		for _, field := range definition.Fields {
			if !isIntrospectionField(field.Name) {
				roots = append(roots, RootField{string(kind), field.Name})
			}
		}
	}
	return roots
}

// singleField returns the only field of a selection and of name, apart from
// introspection. It returns "" for none and [MultipleFields] for several.
func singleField(set ast.SelectionSet, name string) string {
	for _, selection := range set {
		next := ""
		switch selection := selection.(type) {
		case *ast.Field:
			if !isIntrospectionField(selection.Name) {
				next = selection.Name
			}
		case *ast.InlineFragment:
			next = singleField(selection.SelectionSet, "")
		case *ast.FragmentSpread:
			next = singleField(selection.Definition.SelectionSet, "")
		}
		switch {
		case next == "" || next == name:
		case name == "":
			name = next
		default:
			return MultipleFields
		}
	}
	return name
}

func isIntrospectionField(name string) bool { return strings.HasPrefix(name, "__") }

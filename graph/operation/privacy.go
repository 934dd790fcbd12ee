package operation

import "github.com/vektah/gqlparser/v2/ast"

// IsPrivate reports whether the response to a selection may depend on the caller:
// whether it selects a private field at any depth.
func IsPrivate(set ast.SelectionSet) bool {
	for _, selection := range set {
		switch selection := selection.(type) {
		case *ast.Field:
			if IsPrivateField(selection.Definition) || IsPrivate(selection.SelectionSet) {
				return true
			}
		case *ast.InlineFragment:
			if IsPrivate(selection.SelectionSet) {
				return true
			}
		case *ast.FragmentSpread:
			if IsPrivate(selection.Definition.SelectionSet) {
				return true
			}
		}
	}
	return false
}

// IsPrivateField reports whether the schema marks a field with @authenticated or
// @cacheControl(scope: PRIVATE).
func IsPrivateField(field *ast.FieldDefinition) bool {
	if field.Directives.ForName("authenticated") != nil {
		return true
	}
	control := field.Directives.ForName("cacheControl")
	return control != nil && control.Arguments.ForName("scope").Value.Raw == "PRIVATE"
}

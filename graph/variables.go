package graph

import (
	"context"
	"reflect"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/models"
)

// strictVariables refuses a variable whose JSON type is not the one its GraphQL
// type asks for. The executor by itself reads the number 7 as the text "7", the
// text "7" as a number, and takes open for OPEN until it fails over it; written
// in a document all of these are refused.
type strictVariables struct{ schema *ast.Schema }

// ExtensionName names the extension for the executor.
func (*strictVariables) ExtensionName() string { return "StrictVariables" }

// Validate takes the schema that the types are from.
func (s *strictVariables) Validate(schema graphql.ExecutableSchema) error {
	s.schema = schema.Schema()
	return nil
}

// MutateOperationContext looks at the variables of an operation.
func (s *strictVariables) MutateOperationContext(_ context.Context, operation *graphql.OperationContext) *gqlerror.Error {
	for _, variable := range operation.Operation.VariableDefinitions {
		if name := s.firstMismatch(variable.Variable, variable.Type, operation.Variables[variable.Variable]); name != "" {
			return &gqlerror.Error{
				Message:    name + " has a value of the wrong type",
				Extensions: map[string]any{"code": string(models.InvalidInput), "field": name},
			}
		}
	}
	return nil
}

// firstMismatch returns the name of the first value in value that is of the wrong
// type; empty when there is none.
func (s *strictVariables) firstMismatch(name string, typ *ast.Type, value any) string {
	if value == nil {
		return "" // whether it may be has been looked at
	}
	if list := reflect.ValueOf(value); typ.Elem != nil && list.Kind() == reflect.Slice {
		for i := range list.Len() {
			if wrong := s.firstMismatch(name, typ.Elem, list.Index(i).Interface()); wrong != "" {
				return wrong
			}
		}
		return ""
	}
	if typ.Elem != nil { // one value stands for a list of it
		return s.firstMismatch(name, typ.Elem, value)
	}
	definition := s.schema.Types[typ.NamedType]
	if fields, ok := value.(map[string]any); ok && definition.Kind == ast.InputObject {
		for _, field := range definition.Fields {
			if wrong := s.firstMismatch(field.Name, field.Type, fields[field.Name]); wrong != "" {
				return wrong
			}
		}
		return ""
	}
	if !matchesType(definition, value) {
		return name
	}
	return ""
}

// matchesType reports whether a value that is no list and no input is of its type.
// Scalars of our own look at their values themselves.
func matchesType(definition *ast.Definition, value any) bool {
	text, isText := value.(string)
	switch {
	case definition.Kind == ast.Enum:
		return isText && definition.EnumValues.ForName(text) != nil
	case definition.Name == "String" || definition.Name == "URL":
		return isText
	case definition.Name == "Int":
		return !isText
	default:
		return true
	}
}

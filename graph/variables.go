package graph

import (
	"context"
	"reflect"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/models"
)

// strictVariables rejects a variable whose JSON type does not match its GraphQL type.
// gqlgen accepts the number 7 as a String and the text "7" as an Int, and fails late on an
// unknown enum value. In a document it rejects all of these. It also fails late on null for
// a variable whose default makes it valid where null is not.
type strictVariables struct{ schema *ast.Schema }

// ExtensionName implements graphql.HandlerExtension.
func (*strictVariables) ExtensionName() string { return "StrictVariables" }

// Validate implements graphql.HandlerExtension and stores the schema.
func (s *strictVariables) Validate(schema graphql.ExecutableSchema) error {
	s.schema = schema.Schema()
	return nil
}

// MutateOperationContext validates the variables of an operation.
func (s *strictVariables) MutateOperationContext(_ context.Context, operation *graphql.OperationContext) *gqlerror.Error {
	for _, variable := range operation.Operation.VariableDefinitions {
		if name := s.firstMismatch(variable.Variable, variable.Type, operation.Variables[variable.Variable]); name != "" {
			return variableError(name, "has a value of the wrong type")
		}
	}
	if name := firstForbiddenNull(operation); name != "" {
		return variableError(name, "must not be null")
	}
	return nil
}

func variableError(name, problem string) *gqlerror.Error {
	return &gqlerror.Error{
		Message:    name + " " + problem,
		Extensions: map[string]any{"code": string(models.InvalidInput), "field": name},
	}
}

// firstMismatch returns the name of the first variable or input field in value that has
// the wrong type, "" for none.
func (s *strictVariables) firstMismatch(name string, typ *ast.Type, value any) string {
	if value == nil {
		return "" // nullability has been validated
	}
	if list := reflect.ValueOf(value); typ.Elem != nil && list.Kind() == reflect.Slice {
		for i := range list.Len() {
			if mismatch := s.firstMismatch(name, typ.Elem, list.Index(i).Interface()); mismatch != "" {
				return mismatch
			}
		}
		return ""
	}
	if typ.Elem != nil { // a single value is a list of one
		return s.firstMismatch(name, typ.Elem, value)
	}
	definition := s.schema.Types[typ.NamedType]
	if fields, ok := value.(map[string]any); ok && definition.Kind == ast.InputObject {
		for _, field := range definition.Fields {
			if mismatch := s.firstMismatch(field.Name, field.Type, fields[field.Name]); mismatch != "" {
				return mismatch
			}
		}
		return ""
	}
	if !matchesType(definition, value) {
		return name
	}
	return ""
}

// matchesType reports whether a scalar or enum value has its type. Custom scalars
// validate their values themselves.
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

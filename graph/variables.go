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
		if err := s.firstMismatch(variable.Variable, variable.Type, operation.Variables[variable.Variable]); err != nil {
			return variableError(err)
		}
	}
	if name := firstForbiddenNull(operation); name != "" {
		return variableError(models.FieldErrorf(name, "must not be null"))
	}
	return nil
}

// variableError returns the error of a document for the error of a variable.
func variableError(err *models.Error) *gqlerror.Error {
	return &gqlerror.Error{Message: err.Message, Extensions: map[string]any{"code": string(err.Code), "field": err.Field}}
}

// firstMismatch returns the error for the first variable or input field in value that has
// the wrong type, nil for none.
func (s *strictVariables) firstMismatch(name string, typ *ast.Type, value any) *models.Error {
	if value == nil {
		return nil // nullability has been validated
	}
	if list := reflect.ValueOf(value); typ.Elem != nil && list.Kind() == reflect.Slice {
		for i := range list.Len() {
			if mismatch := s.firstMismatch(name, typ.Elem, list.Index(i).Interface()); mismatch != nil {
				return mismatch
			}
		}
		return nil
	}
	if typ.Elem != nil { // a single value is a list of one
		return s.firstMismatch(name, typ.Elem, value)
	}
	definition := s.schema.Types[typ.NamedType]
	if fields, ok := value.(map[string]any); ok && definition.Kind == ast.InputObject {
		for _, field := range definition.Fields {
			if mismatch := s.firstMismatch(field.Name, field.Type, fields[field.Name]); mismatch != nil {
				return mismatch
			}
		}
		return nil
	}
	return checkValue(name, definition, value)
}

// checkValue returns the error for a scalar or enum value that does not have its type.
// Other custom scalars validate their values themselves.
func checkValue(name string, definition *ast.Definition, value any) *models.Error {
	text, isText := value.(string)
	matches := true
	switch {
	case definition.Kind == ast.Enum:
		matches = isText && definition.EnumValues.ForName(text) != nil
	case definition.Name == "String" || definition.Name == "URL":
		matches = isText
	case definition.Name == "Int" || definition.Name == "Credits":
		if err := new(models.Credits).UnmarshalGQL(value); err != nil {
			return models.FieldErrorf(name, "%v", err)
		}
	}
	if !matches {
		return models.FieldErrorf(name, "has a value of the wrong type")
	}
	return nil
}

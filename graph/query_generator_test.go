package graph

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"
	"pgregory.net/rapid"

	"agentmarket.space/server/graph/generated"
)

// queryGenerator generates random valid queries with aliases, fragments, directives and
// variables, for existing objects.
type queryGenerator struct {
	*rapid.T

	schema              *ast.Schema
	ids                 []string // of agents and tasks
	nameCount           int      // of aliases, fragments and variables
	variableDefinitions []string
	variables           map[string]any
	fragments           []string
}

// randomQuery returns the body of a request with a random query.
func randomQuery(r *rapid.T, ids []string) []byte {
	a := &queryGenerator{T: r, schema: generated.NewExecutableSchema(generated.Config{}).Schema(), ids: ids, variables: map[string]any{}}
	selection := a.selection(a.schema.Query, 4)
	document := "query"
	if len(a.variableDefinitions) > 0 {
		document += "(" + strings.Join(a.variableDefinitions, ", ") + ")"
	}
	document += " " + selection + strings.Join(a.fragments, "")
	body, err := json.Marshal(map[string]any{"query": document, "variables": a.variables})
	if err != nil {
		r.Fatal(err)
	}
	return body
}

func (a *queryGenerator) chance(what string, oneIn int) bool {
	return rapid.IntRange(1, oneIn).Draw(a.T, what) == 1
}

func (a *queryGenerator) name() string {
	a.nameCount++
	return fmt.Sprintf("n%d", a.nameCount)
}

// selection returns a selection of a type, to a depth.
func (a *queryGenerator) selection(of *ast.Definition, depth int) string {
	parts := []string{"__typename"}
	var fields ast.FieldList
	for _, field := range of.Fields {
		if composite := a.composite(field.Type); !strings.HasPrefix(field.Name, "__") && (composite == nil || depth > 1) {
			fields = append(fields, field)
		}
	}
	for range rapid.IntRange(1, 4).Draw(a.T, "fields") {
		if len(fields) > 0 {
			parts = append(parts, a.maybeInFragment(of, a.field(rapid.SampledFrom(fields).Draw(a.T, "field"), depth)))
		}
	}
	if of.Kind == ast.Interface {
		for _, possible := range a.schema.GetPossibleTypes(of) {
			parts = append(parts, "... on "+possible.Name+" "+a.selection(possible, depth-1))
		}
	}
	return "{ " + strings.Join(parts, " ") + " }"
}

// composite returns the definition of a type with fields, nil for other types.
func (a *queryGenerator) composite(t *ast.Type) *ast.Definition {
	definition := a.schema.Types[t.Name()]
	if definition.IsCompositeType() {
		return definition
	}
	return nil
}

func (a *queryGenerator) field(f *ast.FieldDefinition, depth int) string {
	text := f.Name
	if len(f.Arguments) > 0 || a.chance("alias", 4) {
		text = a.name() + ": " + text
	}
	var arguments []string
	for _, argument := range f.Arguments {
		if argument.Name != "after" && (argument.Type.NonNull || a.chance("argument", 2)) {
			arguments = append(arguments, argument.Name+": "+a.argument(argument.Type))
		}
	}
	if len(arguments) > 0 {
		text += "(" + strings.Join(arguments, ", ") + ")"
	}
	text += a.directive()
	if composite := a.composite(f.Type); composite != nil {
		text += " " + a.selection(composite, depth-1)
	}
	return text
}

// maybeInFragment sometimes puts a field into a fragment.
func (a *queryGenerator) maybeInFragment(of *ast.Definition, field string) string {
	switch rapid.IntRange(0, 9).Draw(a.T, "fragment") {
	case 0:
		return "... on " + of.Name + a.directive() + " { " + field + " }"
	case 1:
		name := a.name()
		a.fragments = append(a.fragments, " fragment "+name+" on "+of.Name+" { "+field+" }")
		return "..." + name
	default:
		return field
	}
}

func (a *queryGenerator) directive() string {
	if !a.chance("directive", 8) {
		return ""
	}
	name := rapid.SampledFrom([]string{"include", "skip"}).Draw(a.T, "name")
	return " @" + name + "(if: " + a.variable("Boolean!", rapid.Bool().Draw(a.T, "if")) + ")"
}

// argument returns a value of a type, as a literal or a variable.
func (a *queryGenerator) argument(t *ast.Type) string {
	value := a.value(t)
	if a.chance("variable", 2) {
		return a.variable(t.String(), value)
	}
	return a.literal(t, value)
}

func (a *queryGenerator) variable(typ string, value any) string {
	name := a.name()
	a.variableDefinitions = append(a.variableDefinitions, "$"+name+": "+typ)
	a.variables[name] = value
	return "$" + name
}

func (a *queryGenerator) value(t *ast.Type) any {
	if t.Elem != nil {
		return []any{a.value(t.Elem)}
	}
	definition := a.schema.Types[t.NamedType]
	switch {
	case definition.Kind == ast.Enum:
		return rapid.SampledFrom(definition.EnumValues).Draw(a.T, "enum").Name
	case definition.Kind == ast.InputObject:
		object := map[string]any{}
		for _, field := range definition.Fields {
			if field.Type.NonNull || a.chance("member", 3) {
				object[field.Name] = a.value(field.Type)
			}
		}
		return object
	case definition.Name == "ID":
		return rapid.SampledFrom(a.ids).Draw(a.T, "id")
	case definition.Name == "Int", definition.Name == "Credits":
		return rapid.IntRange(1, 6).Draw(a.T, "number")
	default:
		return rapid.SampledFrom([]string{"x", "task", "agent"}).Draw(a.T, "text")
	}
}

// literal returns a value in GraphQL syntax.
func (a *queryGenerator) literal(t *ast.Type, value any) string {
	switch value := value.(type) {
	case []any:
		return "[" + a.literal(t.Elem, value[0]) + "]"
	case map[string]any:
		var members []string
		for _, field := range a.schema.Types[t.NamedType].Fields {
			if member, ok := value[field.Name]; ok {
				members = append(members, field.Name+": "+a.literal(field.Type, member))
			}
		}
		return "{" + strings.Join(members, ", ") + "}"
	case string:
		if a.schema.Types[t.NamedType].Kind == ast.Enum {
			return value
		}
		return fmt.Sprintf("%q", value)
	default:
		return fmt.Sprint(value)
	}
}

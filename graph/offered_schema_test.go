package graph

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"

	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// introspected is the response to membersQuery.
type introspected struct {
	Types []struct {
		Name   string
		Fields []struct {
			Name string
			Args []struct{ Name string }
		}
		InputFields, EnumValues []struct{ Name string }
	}
	Directives []struct {
		Name      string
		Locations []string
		Args      []struct{ Name string }
	}
}

const membersQuery = `{ __schema { types { name fields(includeDeprecated: true) { name args { name } } inputFields { name } enumValues(includeDeprecated: true) { name } }
	directives { name locations args { name } } } }`

// members returns a line for each type, field, argument, enum value and directive.
func (i *introspected) members() map[string]bool {
	all := map[string]bool{}
	for _, object := range i.Types {
		all[object.Name] = true
		for _, field := range object.Fields {
			all[object.Name+"."+field.Name] = true
			for _, argument := range field.Args {
				all[object.Name+"."+field.Name+"."+argument.Name] = true
			}
		}
		for _, member := range slices.Concat(object.InputFields, object.EnumValues) {
			all[object.Name+"."+member.Name] = true
		}
	}
	for _, directive := range i.Directives {
		all["@"+directive.Name+" on "+strings.Join(slices.Sorted(slices.Values(directive.Locations)), " ")] = true
		for _, argument := range directive.Args {
			all["@"+directive.Name+"."+argument.Name] = true
		}
	}
	return all
}

// schemaMembers returns the same lines for a schema.
func schemaMembers(schema *ast.Schema) map[string]bool {
	all := map[string]bool{}
	for _, object := range schema.Types {
		all[object.Name] = true
		for _, field := range object.Fields {
			if field.Name == "__schema" || field.Name == "__type" || field.Name == "__typename" { // gqlparser adds them to Query
				continue
			}
			all[object.Name+"."+field.Name] = true
			for _, argument := range field.Arguments {
				all[object.Name+"."+field.Name+"."+argument.Name] = true
			}
		}
		for _, value := range object.EnumValues {
			all[object.Name+"."+value.Name] = true
		}
	}
	for _, directive := range schema.Directives {
		var locations []string
		for _, location := range directive.Locations {
			locations = append(locations, string(location))
		}
		slices.Sort(locations)
		all["@"+directive.Name+" on "+strings.Join(locations, " ")] = true
		for _, argument := range directive.Arguments {
			all["@"+directive.Name+"."+argument.Name] = true
		}
	}
	return all
}

// TestOfferedSchema checks that introspection, the text of the schema and the executed
// schema have the same types, fields and directives, except for @defer, which gqlparser adds
// to a text and which is not served.
func TestOfferedSchema(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	var offered introspected
	testutil.Must(t, json.Unmarshal([]byte(b.mustQuery(t, caller{}, membersQuery).get(t, "__schema")), &offered))
	text, err := gqlparser.LoadSchema(&ast.Source{Input: Schema()})
	testutil.Must(t, err)
	delete(text.Directives, "defer")
	compareMembers(t, "introspection", offered.members(), "the text", schemaMembers(text))
	compareMembers(t, "introspection", offered.members(), "the executed schema", schemaMembers(b.server.schema))

	inDocuments := []string{"QUERY", "MUTATION", "SUBSCRIPTION", "FIELD", "FRAGMENT_DEFINITION", "FRAGMENT_SPREAD", "INLINE_FRAGMENT", "VARIABLE_DEFINITION"}
	for _, directive := range offered.Directives {
		usable := slices.ContainsFunc(directive.Locations, func(location string) bool { return slices.Contains(inDocuments, location) })
		if usable != (directive.Name == "skip" || directive.Name == "include") {
			t.Errorf("@%s is offered on %v; documents can use @skip and @include only", directive.Name, directive.Locations)
		}
	}
}

func compareMembers(t *testing.T, name string, got map[string]bool, otherName string, other map[string]bool) {
	t.Helper()
	for _, member := range slices.Sorted(maps.Keys(got)) {
		if !other[member] {
			t.Errorf("%s is in %s, not in %s", member, name, otherName)
		}
	}
	for _, member := range slices.Sorted(maps.Keys(other)) {
		if !got[member] {
			t.Errorf("%s is in %s, not in %s", member, otherName, name)
		}
	}
}

// TestDirectives checks on every transport that @skip and @include are executed, and that
// any other directive is rejected, with and without an operation that is valid without it.
func TestDirectives(t *testing.T) {
	t.Parallel()
	b, log := newLoggedBundle(t)
	agent := b.registerAgent(t, "")
	for text, want := range map[string]string{
		`{ viewer { agent { name } wallet @skip(if: true) { balance } } }`:                           `{"agent":{"name":"Agent"}}`,
		`{ viewer { agent { name } ... @include(if: false) { wallet { balance } } } }`:               `{"agent":{"name":"Agent"}}`,
		`{ viewer { ...W @include(if: true) } } fragment W on Viewer { wallet { balance } }`:         `{"wallet":{"balance":100}}`,
		`{ viewer { agent { name } ... @defer { wallet { balance } } } }`:                            "",
		`{ viewer { agent { name } ... @defer(if: false) { wallet { balance } } } }`:                 "",
		`{ viewer { agent { name } ...W @defer } } fragment W on Viewer { wallet { balance } }`:      "",
		`{ viewer { ...V } } fragment V on Viewer { ... @defer(label: "x") { wallet { balance } } }`: "",
		`{ tasks { nodes @stream { id } } }`:                                                         "",
		`query @live { tasks { totalCount } }`:                                                       "",
	} {
		for transport, got := range b.sendEverywhere(t, agent, document{text, ""}) {
			if want == "" {
				if got.code() != string(models.InvalidInput) || got.Data != nil {
					t.Errorf("%s: %s: got %v, %v", transport, text, got.Data, got.Errors)
				}
				continue
			}
			if viewer := got.get(t, "viewer"); viewer != want {
				t.Errorf("%s: %s: got %s, want %s", transport, text, viewer, want)
			}
		}
	}
	for transport, got := range b.sendEverywhere(t, agent, document{`subscription { taskPosted { cursor ... @defer { task { id } } } }`, ""}) {
		if got.code() != string(models.InvalidInput) || !strings.Contains(fmt.Sprint(got.Errors), "@defer") {
			t.Errorf("%s: got %v, %v", transport, got.Data, got.Errors)
		}
	}
	if log.String() != "" {
		t.Errorf("logged %s", log)
	}
}

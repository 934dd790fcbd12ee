package compat

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestRESTDocs holds docs/api/rest.md to the routes: their fields as the OpenAPI
// document has them, their refusals, and the transcripts as examples. -update writes
// what is missing.
func TestRESTDocs(t *testing.T) {
	t.Parallel()
	const path = "../docs/api/rest.md"
	raw, err := os.ReadFile(path)
	testutil.Must(t, err)
	page := replaceSection(t, string(raw), "refusals", errorTable())
	page = replaceSection(t, page, "routes", routeSections(t))
	assertGolden(t, path, page)
}

// replaceSection puts text between two marks of a page.
func replaceSection(t *testing.T, page, mark, text string) string {
	t.Helper()
	begin, end := "<!-- "+mark+" -->\n", "<!-- /"+mark+" -->\n"
	before, rest, begins := strings.Cut(page, begin)
	_, after, ends := strings.Cut(rest, end)
	if !begins || !ends {
		t.Fatalf("the page has no place for %s", mark)
	}
	return before + begin + text + end + after
}

func errorTable() string {
	var out strings.Builder
	out.WriteString("| code | status | what to do |\n|---|---|---|\n")
	for _, code := range ErrorCodes() {
		fmt.Fprintf(&out, "| `%s` | %d | %s |\n", code, HTTPStatus(code), Advice(code))
	}
	return out.String()
}

func routeSections(t *testing.T) string {
	t.Helper()
	document := buildOpenAPI((&handler{}).routes(), Options{})
	var out strings.Builder
	tag := ""
	for _, of := range document.Tags {
		for _, rt := range (&handler{}).routes() {
			if rt.tag != of.Name {
				continue
			}
			if tag != rt.tag {
				tag = rt.tag
				fmt.Fprintf(&out, "## %s\n\n", tag)
			}
			writeRouteSection(t, &out, &rt, document)
		}
	}
	return out.String()
}

// writeRouteSection tells of one route.
func writeRouteSection(t *testing.T, out *strings.Builder, rt *route, document *huma.OpenAPI) {
	t.Helper()
	key := ""
	if rt.requiresKey {
		key = " Needs a key."
	}
	fmt.Fprintf(out, "### %s %s\n\n%s%s\n\n", rt.method, rt.path, rt.summary, key)
	var rows strings.Builder
	op := *operationAt(document.Paths[rt.path], rt.method)
	for _, param := range op.Parameters {
		if param.In == "query" {
			rows.WriteString(fieldRow("?"+param.Name, param.Schema, false, param.Description))
		}
	}
	if rt.request != reflect.TypeFor[noBody]() {
		schema := document.Components.Schemas.SchemaFromRef(op.RequestBody.Content[mediaJSON].Schema.Ref)
		for field := range rt.request.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			rows.WriteString(fieldRow(name, schema.Properties[name], slices.Contains(schema.Required, name), schema.Properties[name].Description))
		}
	}
	if rows.Len() > 0 {
		fmt.Fprintf(out, "| field | type | |\n|---|---|---|\n%s\n", rows.String())
	}
	if rt.supportsAsync {
		out.WriteString("With `Prefer: respond-async` the answer is 202 with the task's id, at once; see [execution](../execution.md).\n\n")
	}
	if len(rt.errorCodes) > 0 {
		var own []string
		for _, code := range rt.errorCodes {
			own = append(own, fmt.Sprintf("`%s` %d", code, HTTPStatus(code)))
		}
		fmt.Fprintf(out, "Refused with %s.\n\n", strings.Join(own, ", "))
	}
	fmt.Fprintf(out, "```http\n%s```\n\n", findTranscript(t, rt))
}

// fieldRow tells of one field.
func fieldRow(name string, schema *huma.Schema, required bool, says string) string {
	kind := schema.Type
	if schema.Type == huma.TypeArray {
		kind = "array of strings"
	}
	if schema.Format != "" && schema.Format != "int64" {
		kind += ", " + schema.Format
	}
	facts := []string{}
	if required {
		facts = append(facts, "required")
	}
	facts = append(facts, constraints(schema)...)
	if says != "" {
		facts = append(facts, says)
	}
	return fmt.Sprintf("| `%s` | %s | %s |\n", name, kind, strings.Join(facts, "; "))
}

// constraints are what a value is held to.
func constraints(schema *huma.Schema) (facts []string) {
	if schema.MaxLength != nil {
		least := 0
		if schema.MinLength != nil {
			least = *schema.MinLength
		}
		facts = append(facts, fmt.Sprintf("%d to %d characters", least, *schema.MaxLength))
	}
	if schema.MaxItems != nil {
		facts = append(facts, fmt.Sprintf("at most %d", *schema.MaxItems))
	}
	if schema.Minimum != nil && schema.Maximum != nil {
		facts = append(facts, fmt.Sprintf("%.0f to %.0f", *schema.Minimum, *schema.Maximum))
	}
	words := schema.Enum
	if schema.Items != nil {
		words = append(words, schema.Items.Enum...)
	}
	if len(words) > 0 {
		var all []string
		for _, word := range words {
			all = append(all, fmt.Sprintf("`%v`", word))
		}
		facts = append(facts, "of "+strings.Join(all, ", "))
	}
	if schema.Default != nil {
		facts = append(facts, fmt.Sprintf("%v when left out", reflect.Indirect(reflect.ValueOf(schema.Default))))
	}
	return facts
}

// findTranscript is what was said on a route, as the server itself said it.
func findTranscript(t *testing.T, rt *route) string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	testutil.Must(t, err)
	asks := regexp.MustCompile("^" + rt.method + " " + strings.ReplaceAll(regexp.QuoteMeta(rt.path), `\{id\}`, `\{[a-z-]+\}`) + `(\?\S*)?\n`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		testutil.Must(t, err)
		if asks.Match(text) {
			return strings.ReplaceAll(string(text), "\n\n200 OK\n", "\n\nHTTP/1.1 200 OK\n")
		}
	}
	t.Fatalf("nothing was said on %s %s", rt.method, rt.path)
	return ""
}

// TestAdvice: each code that a client can meet comes with what to do.
func TestAdvice(t *testing.T) {
	t.Parallel()
	for _, code := range append(ErrorCodes(), models.CursorExpired, models.SlowConsumer) {
		if advice := Advice(code); !strings.HasSuffix(advice, ".") {
			t.Errorf("the advice on %s is %q", code, advice)
		}
	}
}

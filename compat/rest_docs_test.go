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

// TestRESTDocs compares docs/api/rest.md with the routes: their fields from the
// OpenAPI document, their error codes and their transcripts. -update writes the
// differences.
func TestRESTDocs(t *testing.T) {
	t.Parallel()
	const path = "../docs/api/rest.md"
	raw, err := os.ReadFile(path)
	testutil.Must(t, err)
	page := replaceSection(t, string(raw), "errors", errorTable())
	page = replaceSection(t, page, "routes", routeSections(t))
	assertGolden(t, path, page)
}

// replaceSection replaces the text between two markers of a page.
func replaceSection(t *testing.T, page, marker, text string) string {
	t.Helper()
	begin, end := "<!-- "+marker+" -->\n", "<!-- /"+marker+" -->\n"
	before, rest, begins := strings.Cut(page, begin)
	_, after, ends := strings.Cut(rest, end)
	if !begins || !ends {
		t.Fatalf("the page has no markers for %s", marker)
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
	for _, docTag := range document.Tags {
		for _, rt := range (&handler{}).routes() {
			if rt.tag != docTag.Name {
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

// writeRouteSection writes the section of one route.
func writeRouteSection(t *testing.T, out *strings.Builder, rt *route, document *huma.OpenAPI) {
	t.Helper()
	key := ""
	if rt.requiresKey {
		key = " Requires an API key."
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
		out.WriteString("With `Prefer: respond-async` the response is 202 with the task's id, without waiting for the result. See [execution](../execution.md).\n\n")
	}
	if len(rt.errorCodes) > 0 {
		var codes []string
		for _, code := range rt.errorCodes {
			codes = append(codes, fmt.Sprintf("`%s` %d", code, HTTPStatus(code)))
		}
		fmt.Fprintf(out, "Errors: %s.\n\n", strings.Join(codes, ", "))
	}
	fmt.Fprintf(out, "```http\n%s```\n\n", findTranscript(t, rt))
}

// fieldRow returns the table row of one field.
func fieldRow(name string, schema *huma.Schema, required bool, description string) string {
	typ := schema.Type
	if schema.Type == huma.TypeArray {
		typ = "array of strings"
	}
	if schema.Format != "" && schema.Format != "int64" {
		typ += ", " + schema.Format
	}
	notes := []string{}
	if required {
		notes = append(notes, "required")
	}
	notes = append(notes, constraints(schema)...)
	if description != "" {
		notes = append(notes, description)
	}
	return fmt.Sprintf("| `%s` | %s | %s |\n", name, typ, strings.Join(notes, "; "))
}

// constraints describes the valid values of a schema.
func constraints(schema *huma.Schema) (notes []string) {
	if schema.MaxLength != nil {
		minLength := 0
		if schema.MinLength != nil {
			minLength = *schema.MinLength
		}
		notes = append(notes, fmt.Sprintf("%d to %d characters", minLength, *schema.MaxLength))
	}
	if schema.MaxItems != nil {
		notes = append(notes, fmt.Sprintf("at most %d", *schema.MaxItems))
	}
	if schema.Minimum != nil && schema.Maximum != nil {
		notes = append(notes, fmt.Sprintf("%.0f to %.0f", *schema.Minimum, *schema.Maximum))
	}
	values := schema.Enum
	if schema.Items != nil {
		values = append(values, schema.Items.Enum...)
	}
	if len(values) > 0 {
		var all []string
		for _, value := range values {
			all = append(all, fmt.Sprintf("`%v`", value))
		}
		notes = append(notes, "one of "+strings.Join(all, ", "))
	}
	if schema.Default != nil {
		notes = append(notes, fmt.Sprintf("default %v", reflect.Indirect(reflect.ValueOf(schema.Default))))
	}
	return notes
}

// findTranscript returns the transcript of a route, as recorded from the server.
func findTranscript(t *testing.T, rt *route) string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	testutil.Must(t, err)
	request := regexp.MustCompile("^" + rt.method + " " + strings.ReplaceAll(regexp.QuoteMeta(rt.path), `\{id\}`, `\{[a-z-]+\}`) + `(\?\S*)?\n`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		testutil.Must(t, err)
		if request.Match(text) {
			return strings.ReplaceAll(string(text), "\n\n200 OK\n", "\n\nHTTP/1.1 200 OK\n")
		}
	}
	t.Fatalf("no transcript of %s %s", rt.method, rt.path)
	return ""
}

// TestAdvice_everyErrorCode checks that each error code has an advice.
func TestAdvice_everyErrorCode(t *testing.T) {
	t.Parallel()
	for _, code := range append(ErrorCodes(), models.CursorExpired, models.SlowConsumer) {
		if advice := Advice(code); !strings.HasSuffix(advice, ".") {
			t.Errorf("advice for %s: %q", code, advice)
		}
	}
}

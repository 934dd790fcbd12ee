package compat

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"agentmarket.space/server/internal/test/testutil"
)

// TestOpenAPI checks that the document is OpenAPI 3.1, describes exactly the routes of
// the table, and has no broken references.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	res, err := http.Get(b.url + "/openapi.json")
	testutil.Must(t, err)
	defer func() { testutil.Must(t, res.Body.Close()) }()
	var document map[string]any
	testutil.Must(t, json.NewDecoder(res.Body).Decode(&document))
	testutil.Equal(t, "version", stringField(t, document, "openapi"), "3.1.0")

	var described, want []string
	ids := map[string]bool{}
	for path, item := range objectField(t, document, "paths") {
		methods, _ := item.(map[string]any)
		for method := range methods {
			described = append(described, strings.ToUpper(method)+" "+path)
			ids[stringField(t, objectField(t, methods, method), "operationId")] = true
		}
	}
	routes := (&handler{}).routes()
	for _, rt := range routes {
		want = append(want, rt.method+" "+rt.path)
	}
	slices.Sort(described)
	slices.Sort(want)
	testutil.Equal(t, "routes", strings.Join(described, "\n"), strings.Join(want, "\n"))
	testutil.Equal(t, "operation ids", len(ids), len(routes))

	schemas := objectField(t, objectField(t, document, "components"), "schemas")
	for ref := range collectRefs(document) {
		if name, ok := strings.CutPrefix(ref, "#/components/schemas/"); !ok || schemas[name] == nil {
			t.Errorf("broken reference %s; the schemas are %v", ref, slices.Sorted(maps.Keys(schemas)))
		}
	}
}

// TestOpenAPI_examples validates the examples against their schemas.
func TestOpenAPI_examples(t *testing.T) {
	t.Parallel()
	routes := (&handler{}).routes()
	document := buildOpenAPI(routes, Options{})
	for _, rt := range routes {
		op := *operationAt(document.Paths[rt.path], rt.method)
		for status, response := range op.Responses {
			if content := response.Content[mediaJSON]; status < "300" {
				validateSchema(t, rt.name+" response "+status, document, content.Schema, jsonRoundTrip(t, content.Example))
			}
		}
		if op.RequestBody != nil {
			body := op.RequestBody.Content[mediaJSON]
			validateSchema(t, rt.name+" request", document, body.Schema, jsonRoundTrip(t, body.Example))
		}
	}
}

// jsonRoundTrip encodes and decodes a value.
func jsonRoundTrip(t *testing.T, v any) any {
	t.Helper()
	raw, err := json.Marshal(v)
	testutil.Must(t, err)
	var out any
	testutil.Must(t, json.Unmarshal(raw, &out))
	return out
}

func objectField(t *testing.T, in map[string]any, name string) map[string]any {
	t.Helper()
	out, ok := in[name].(map[string]any)
	if !ok {
		t.Fatalf("no object %s", name)
	}
	return out
}

// collectRefs returns every $ref in a value.
func collectRefs(v any) map[string]bool {
	found := map[string]bool{}
	switch v := v.(type) {
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok {
			found[ref] = true
		}
		for _, member := range v {
			maps.Copy(found, collectRefs(member))
		}
	case []any:
		for _, item := range v {
			maps.Copy(found, collectRefs(item))
		}
	}
	return found
}

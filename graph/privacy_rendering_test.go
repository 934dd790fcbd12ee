package graph

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/vektah/gqlparser/v2/ast"

	"agentmarket.space/server/graph/operation"
	"agentmarket.space/server/internal/test/testutil"
)

// TestPrivacy_rendering checks that a public query has the same response, byte for
// byte, for a poster, its worker and a stranger. It selects every public field below
// each public field of Query, without a cache.
func TestPrivacy_rendering(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	uncached, err := NewServer(b.resolver, ServerOptions{Introspection: true, Keys: b.Keys, Logger: b.Logger})
	testutil.Must(t, err)
	handler := b.authenticate(uncached)
	c := b.registerParticipants(t)
	b.triggerEveryEvent(t, c)
	arguments := map[string]string{"agent": fmt.Sprintf("(id: %q)", c.worker.id), "agents": "(first: 50)", "tasks": "(first: 50)"}
	schema := executableSchema().Schema()
	for _, field := range schema.Query.Fields {
		if operation.IsPrivateField(field) || strings.HasPrefix(field.Name, "__") {
			continue
		}
		document := "{ " + field.Name + arguments[field.Name] + " " + publicSelection(schema, schema.Types[field.Type.Name()], 4) + " }"
		body, err := json.Marshal(map[string]string{"query": document})
		testutil.Must(t, err)
		var anonymous string
		for i, from := range []caller{{}, c.poster, c.worker, c.stranger} {
			request := httptest.NewRequest(http.MethodPost, "/graphql", strings.NewReader(string(body)))
			request.Header.Set("Content-Type", "application/json")
			if from.key != "" {
				request.Header.Set("X-Api-Key", from.key)
			}
			recorder := httptest.NewRecorder()
			handler.ServeHTTP(recorder, request)
			response := recorder.Body.String()
			if i == 0 {
				anonymous = response
			}
			if strings.Contains(response, `"errors"`) || response != anonymous {
				t.Errorf("%s\nreturns %s to caller %d\nand     %s to an anonymous one", document, response, i, anonymous)
			}
		}
	}
}

// publicSelection selects every public field of a type, to a depth.
func publicSelection(schema *ast.Schema, of *ast.Definition, depth int) string {
	parts := []string{"__typename"}
	for _, field := range of.Fields {
		child := schema.Types[field.Type.Name()]
		switch {
		case operation.IsPrivateField(field):
		case !child.IsCompositeType():
			parts = append(parts, field.Name)
		case depth > 1:
			parts = append(parts, field.Name+" "+publicSelection(schema, child, depth-1))
		}
	}
	return "{ " + strings.Join(parts, " ") + " }"
}

package compat

import (
	"net/http"
	"testing"

	"agentmarket.space/server/graph/generated"
)

// TestRoutes_cachePrivacy checks that each GET route names the query field that decides who
// shares its cached response.
func TestRoutes_cachePrivacy(t *testing.T) {
	t.Parallel()
	queries := generated.NewExecutableSchema(generated.Config{}).Schema().Query.Fields
	public := map[string]bool{"/api/agents": true, "/api/agents/{id}": true, "/api/tasks": true}
	for _, rt := range (&handler{}).routes() {
		if rt.method != http.MethodGet {
			continue
		}
		if queries.ForName(rt.query) == nil {
			t.Errorf("%s reads %q, which is not a query of the schema", rt.path, rt.query)
		}
		if rt.isPrivate() == public[rt.path] {
			t.Errorf("%s: private is %t", rt.path, rt.isPrivate())
		}
	}
}

package e2e_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
)

// routeAccess is the expected response of a route for each caller.
type routeAccess struct {
	path func(t *testing.T) string
	body string
	// want is the status for each caller, in the order of callerRoles.
	want [len(callerRoles)]int
	// content appears in the response to the callers in visibleTo, and to no other.
	content, visibleTo string
}

// routeMatrix lists who may use each REST route.
func (c *accessFixture) routeMatrix() map[string]routeAccess {
	at := func(path string) func(*testing.T) string { return func(*testing.T) string { return path } }
	on := func(task func(*testing.T) string, verb string) func(*testing.T) string {
		return func(t *testing.T) string {
			t.Helper()
			return "/api/tasks/" + task(t) + verb
		}
	}
	open := func(t *testing.T) string { t.Helper(); return c.newTask(t, c.poster, "any") }
	const yes, no, not = http.StatusOK, http.StatusUnauthorized, http.StatusForbidden
	public, own := [...]int{yes, yes, yes, yes, yes, no}, [...]int{no, yes, yes, yes, yes, no}
	byPoster, byWorker := [...]int{no, not, yes, not, not, no}, [...]int{no, not, not, yes, not, no}
	return map[string]routeAccess{
		"POST /api/agents/register":     {path: at("/api/agents/register"), body: `{"name":"A"}`, want: public},
		"GET /api/agents":               {path: at("/api/agents"), want: public, content: c.owner.ID, visibleTo: everybody},
		"GET /api/agents/{id}":          {path: at("/api/agents/" + c.owner.ID), want: public, content: c.owner.ID, visibleTo: everybody},
		"GET /api/agents/me":            {path: at("/api/agents/me"), want: own, content: "owner@example.com", visibleTo: ownerOnly},
		"POST /api/tasks":               {path: at("/api/tasks"), body: `{"title":"T","description":"D","budget":2}`, want: own},
		"GET /api/tasks":                {path: at("/api/tasks"), want: public, content: c.done, visibleTo: everybody},
		"GET /api/tasks/{id}":           {path: at("/api/tasks/" + c.done), want: public, content: "The result.", visibleTo: parties},
		"POST /api/tasks/{id}/accept":   {path: on(open, "/accept"), want: [...]int{no, yes, not, yes, yes, no}},
		"POST /api/tasks/{id}/complete": {path: on(c.newAssignedTask, "/complete"), body: `{"result":"R"}`, want: byWorker},
		"POST /api/tasks/{id}/cancel":   {path: on(open, "/cancel"), want: byPoster},
		"POST /api/tasks/{id}/release":  {path: on(c.newAssignedTask, "/release"), want: byWorker},
		"POST /api/tasks/{id}/extend":   {path: on(c.newAssignedTask, "/extend"), want: byWorker},
		"POST /api/tasks/{id}/rate":     {path: on(c.newCompletedTask, "/rate"), body: `{"score":5}`, want: byPoster},
		"GET /api/wallet":               {path: at("/api/wallet"), want: own, content: c.owner.ID, visibleTo: ownerOnly},
		"POST /api/execute": {
			path: at("/api/execute"), body: `{"agent_id":"` + c.worker.ID + `","task_description":"D","budget":2}`,
			want: [...]int{no, yes, yes, not, yes, no},
		},
		"GET /api/agents/me/webhook":    {path: at("/api/agents/me/webhook"), want: own, content: ".../hook", visibleTo: ownerOnly},
		"PUT /api/agents/me/webhook":    {path: at("/api/agents/me/webhook"), body: `{"webhook_url":"https://agent.example.com/new"}`, want: own},
		"DELETE /api/agents/me/webhook": {path: at("/api/agents/me/webhook"), want: own},
	}
}

// TestAccess_routes sends a request to every route of /openapi.json as each of the six
// callers. A route without a row fails the test.
func TestAccess_routes(t *testing.T) {
	t.Parallel()
	c := newAccessFixture(t)
	keys, rows := c.keys(), c.routeMatrix()
	// Reads run before the mutations that change their responses.
	for _, changes := range []bool{false, true} {
		for _, route := range openAPIRoutes(t, c.Server) {
			row, ok := rows[route]
			if !ok {
				t.Errorf("%s has no row: add who may use it", route)
				continue
			}
			method, _, _ := strings.Cut(route, " ")
			if (method != http.MethodGet) != changes {
				continue
			}
			for i, side := range callerRoles {
				status, text := c.Do(method, row.path(t), keys[side], row.body)
				if status != row.want[i] {
					t.Errorf("%s as %c: %d %s, want %d", route, side, status, text, row.want[i])
				}
				if may := strings.ContainsRune(row.visibleTo, side); row.content != "" && strings.Contains(text, row.content) != may {
					t.Errorf("%s: %c may read %q: %t, got %s", route, side, row.content, may, text)
				}
				for _, secret := range c.ownerSecrets() {
					if side != 'O' && strings.Contains(text, secret) {
						t.Errorf("%s: %c sees the owner's %q in %s", route, side, secret, text)
					}
				}
			}
		}
	}
	public := [...]int{200, 200, 200, 200, 200, 200} // the key is not checked
	for path, want := range map[string][len(callerRoles)]int{
		"/api/tasks/" + c.hire: {404, 404, 200, 200, 404, 401}, "/operator/audit": {401, 401, 401, 401, 401, 200},
		"/operator/clock": {401, 401, 401, 401, 401, 404}, "/metrics": {401, 401, 401, 401, 401, 200},
		"/": public, "/skill.md": public, "/llms.txt": public, "/schema.graphqls": public, "/docs": public, "/explorer": public,
	} {
		for i, side := range callerRoles {
			if status, text := c.Do(http.MethodGet, path, keys[side], ""); status != want[i] {
				t.Errorf("%s as %c: %d %s, want %d", path, side, status, text, want[i])
			}
		}
	}
}

// openAPIRoutes returns the routes of /openapi.json.
func openAPIRoutes(t *testing.T, server *testserver.Server) (routes []string) {
	t.Helper()
	_, text := server.Do(http.MethodGet, "/openapi.json", "", "")
	var document struct{ Paths map[string]map[string]any }
	if err := json.Unmarshal([]byte(text), &document); err != nil || len(document.Paths) == 0 {
		t.Fatalf("%v in %s", err, text)
	}
	for path, methods := range document.Paths {
		for method := range methods {
			routes = append(routes, strings.ToUpper(method)+" "+path)
		}
	}
	return routes
}

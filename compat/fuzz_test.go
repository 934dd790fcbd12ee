package compat

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzBody sends any body to any route that takes one: there is always an
// envelope and never a fault of the server.
func FuzzBody(f *testing.F) {
	b := open(f)
	poster, worker := b.register(f, "Poster", ""), b.register(f, "Worker", `,"endpoint_url":"https://worker.example.com/run"`)
	task := b.post(f, poster)
	b.ok(f, request{method: "POST", path: "/api/tasks/" + task + "/accept", key: worker.key})
	var routes []route
	for _, rt := range (&door{}).routes() {
		if rt.method != http.MethodGet {
			routes = append(routes, rt)
		}
	}
	for i := range routes {
		for _, body := range []string{
			"", "{}", "null", "[", `{"name":"Bot","capabilities":["a"],"price_per_task":15,"webhook_url":"https://a.example.com/b"}`,
			`{"title":"T","description":"D","budget":2}`, `{"result":"done"}`, `{"score":5,"comment":"\ud800"}`, `{"lease_minutes":1}`,
			`{"agent_id":"` + worker.id + `","task_description":"D","budget":10}`, "{\"name\":\"\xff\"}", `{"budget":1e999}`,
		} {
			f.Add(uint8(i), "application/json", []byte(body))
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, contentType string, body []byte) {
		rt := routes[int(which)%len(routes)]
		r := httptest.NewRequest(rt.method, strings.ReplaceAll(rt.path, "{id}", task), strings.NewReader(string(body)))
		r.Header.Set("Content-Type", contentType)
		r.Header.Set("X-Api-Key", worker.key)
		w := httptest.NewRecorder()
		b.handler.ServeHTTP(w, r)
		answer := enveloped(t, w.Code, w.Header(), w.Body.Bytes())
		if balance, ok := answer["balance"].(float64); !ok || balance < 0 || w.Code >= 500 {
			t.Errorf("%s: %d %s", rt.name, w.Code, w.Body)
		}
	})
}

package compat

import (
	"net/http"
	"reflect"
	"strings"
	"testing"

	"agentmarket.space/server/internal/test/testutil"
)

func TestTaskResult_visibility(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	poster, worker, other := b.registerAgent(t, "Poster", ""), b.registerAgent(t, "Worker", ""), b.registerAgent(t, "Stranger", "")
	task := b.postTask(t, poster)
	b.mustSend(t, request{method: "POST", path: "/api/tasks/" + task + "/accept", key: worker.key})
	b.mustSend(t, request{method: "POST", path: "/api/tasks/" + task + "/complete", key: worker.key, body: `{"result":"<b>done & dusted</b>"}`})

	t.Run("poster and worker see the result unescaped", func(t *testing.T) {
		t.Parallel()
		for _, agent := range []caller{poster, worker} {
			res := b.send(t, request{method: "GET", path: "/api/tasks/" + task, key: agent.key})
			if !strings.Contains(string(res.raw), `"result":"<b>done & dusted</b>"`) {
				t.Errorf("got %s", res.raw)
			}
		}
	})
	t.Run("others do not see the result", func(t *testing.T) {
		t.Parallel()
		for _, key := range []string{other.key, ""} {
			res := b.send(t, request{method: "GET", path: "/api/tasks/" + task, key: key})
			if strings.Contains(string(res.raw), "dusted") {
				t.Errorf("got %s", res.raw)
			}
		}
	})
	t.Run("lists have no results", func(t *testing.T) {
		t.Parallel()
		res := b.send(t, request{method: "GET", path: "/api/tasks?status=completed", key: poster.key})
		if list, ok := res.body["data"].([]any); !ok || len(list) != 1 || strings.Contains(string(res.raw), "dusted") {
			t.Errorf("got %s", res.raw)
		}
	})
}

// TestExecute_visibility checks that only the poster and the worker can see a hire.
func TestExecute_visibility(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	poster, other := b.registerAgent(t, "Poster", ""), b.registerAgent(t, "Stranger", "")
	worker := b.registerAgent(t, "Worker", `,"endpoint_url":"https://worker.example.com/run"`)
	hire := stringField(t, b.mustSend(t, request{
		method: "POST", path: "/api/execute", key: poster.key,
		body: `{"agent_id":"` + worker.id + `","task_description":"Do it","budget":15}`,
	}), "task_id")
	for _, agent := range []caller{poster, worker} {
		testutil.Equal(t, "result", stringField(t, b.mustSend(t, request{method: "GET", path: "/api/tasks/" + hire, key: agent.key}), "result"), "done")
	}
	for _, key := range []string{other.key, ""} {
		testutil.Equal(t, "status for others", b.send(t, request{method: "GET", path: "/api/tasks/" + hire, key: key}).StatusCode, http.StatusNotFound)
	}
	res := b.send(t, request{method: "GET", path: "/api/tasks"})
	testutil.Equal(t, "list", string(res.raw), `{"success":true,"data":[]}`)
}

func TestAgent_hidesPrivateFields(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	agent := b.registerAgent(t, "Shy", `,"owner_email":"me@example.com","system_prompt":"secret prompt","endpoint_url":"https://shy.example.com/run","webhook_url":"https://shy.example.com/hook"`)
	for _, r := range []request{
		{method: "GET", path: "/api/agents/" + agent.id, key: agent.key},
		{method: "GET", path: "/api/agents"},
	} {
		res := b.send(t, r)
		for _, secret := range []string{agent.key, "me@example.com", "secret prompt", "shy.example.com", "whsec_"} {
			if strings.Contains(string(res.raw), secret) {
				t.Errorf("%s shows %s: %s", r.path, secret, res.raw)
			}
		}
	}
}

func TestListPagination(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for _, name := range []string{"one", "two", "three", "four", "five"} {
		b.registerAgent(t, name, `,"capabilities":["Coding"]`)
	}
	b.registerAgent(t, "other", "")
	page := func(t *testing.T, path string) (names, next string) {
		t.Helper()
		res := b.send(t, request{method: "GET", path: path})
		list, ok := res.body["data"].([]any)
		if !ok {
			t.Fatalf("%s: %s", path, res.raw)
		}
		found := make([]string, len(list))
		for i, item := range list {
			agent, _ := item.(map[string]any)
			found[i] = stringField(t, agent, "name")
		}
		link := res.Header.Get("Link")
		return strings.Join(found, " "), strings.TrimSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`)
	}
	t.Run("links lead through all pages, newest first", func(t *testing.T) {
		t.Parallel()
		var all []string
		for path := "/api/agents?capability=coding&limit=2"; path != ""; {
			names, next := page(t, path)
			all, path = append(all, names), next
		}
		testutil.Equal(t, "pages", strings.Join(all, " | "), "five four | three two | one")
	})
	t.Run("the limit is clamped", func(t *testing.T) {
		t.Parallel()
		for limit, want := range map[string]string{
			"0": "other", "-7": "other", "1": "other", "": "other five four three two one",
			"99999999999999999999": "other five four three two one", "-99999999999999999999": "other",
		} {
			got, _ := page(t, "/api/agents?limit="+limit)
			testutil.Equal(t, "limit "+limit, got, want)
		}
	})
	t.Run("no match returns an empty list", func(t *testing.T) {
		t.Parallel()
		for _, capability := range []string{"%25", "_oding", "cod", "'+OR+1=1--", "coding%22"} {
			testutil.Equal(t, capability, string(b.send(t, request{method: "GET", path: "/api/agents?capability=" + capability}).raw), `{"success":true,"data":[]}`)
		}
	})
	t.Run("capability ignores case and surrounding spaces", func(t *testing.T) {
		t.Parallel()
		got, _ := page(t, "/api/agents?capability=%20CODING%20")
		testutil.Equal(t, "found", got, "five four three two one")
	})
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	poster := b.registerAgent(t, "Poster", "")
	post := func(title string) apiResponse {
		return b.send(t, request{
			method: "POST", path: "/api/tasks", key: poster.key, headers: []string{"Idempotency-Key", "once"},
			body: `{"title":"` + title + `","description":"All of it","budget":25}`,
		})
	}
	first, replay, other := post("One"), post("One"), post("Another")
	testutil.Equal(t, "first Idempotency-Replayed", first.Header.Get("Idempotency-Replayed"), "")
	testutil.Equal(t, "second Idempotency-Replayed", replay.Header.Get("Idempotency-Replayed"), "true")
	testutil.Equal(t, "second body", string(replay.raw), string(first.raw))
	testutil.Equal(t, "another body", other.StatusCode, http.StatusUnprocessableEntity)
	testutil.Equal(t, "code", stringField(t, other.body, "code"), "IDEMPOTENCY_KEY_REUSED")
}

// TestBalance_inEveryResponse checks that every response to a valid key has the
// caller's balance.
func TestBalance_inEveryResponse(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	poster := b.registerAgent(t, "Poster", "")
	task := b.postTask(t, poster)
	for _, r := range []request{
		{method: "GET", path: "/api/agents"},
		{method: "GET", path: "/api/tasks"},
		{method: "GET", path: "/api/tasks/" + task},
		{method: "GET", path: "/api/agents/" + poster.id},
		{method: "GET", path: "/api/agents/unknown"},
		{method: "GET", path: "/api/unknown"},
		{method: "DELETE", path: "/api/wallet"},
		{method: "GET", path: "/api/tasks?status=unknown"},
		{method: "POST", path: "/api/tasks", body: "{"},
		{method: "POST", path: "/api/tasks", body: `{"title":"Too expensive","description":"D","budget":76}`},
		{method: "POST", path: "/api/tasks/" + task + "/accept"},
	} {
		testutil.Equal(t, r.method+" "+r.path+" without a key", b.send(t, r).body["balance"], nil)
		r.key = poster.key
		testutil.Equal(t, r.method+" "+r.path, b.send(t, r).body["balance"], any(75.0))
	}
}

func TestHeadRequests(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for _, path := range []string{"/api/agents", "/openapi.json"} {
		head := b.send(t, request{method: "HEAD", path: path})
		testutil.Equal(t, path, head.StatusCode, http.StatusOK)
		testutil.Equal(t, path+": Content-Type", head.Header.Get("Content-Type"), "application/json")
	}
}

// TestContentType sends the content types that curl and other clients send by default,
// and unsupported ones.
func TestContentType(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	poster, worker := b.registerAgent(t, "Poster", ""), b.registerAgent(t, "Worker", "")
	for _, contentType := range []string{"", "application/x-www-form-urlencoded", "application/json"} {
		task := b.postTask(t, poster)
		r := request{method: "POST", path: "/api/tasks/" + task + "/accept", key: worker.key}
		if contentType != "" {
			r.headers = []string{"Content-Type", contentType}
		}
		b.mustSend(t, r)
	}
	for contentType, want := range map[string]int{
		"": 200, "application/json": 200, "application/json; charset=utf-8": 200, "APPLICATION/JSON": 200, "application/vnd.api+json": 200,
		"text/plain": 415, "application/x-www-form-urlencoded": 415, "multipart/form-data; boundary=x": 415, "application/xml": 415, ";;": 415,
	} {
		r := request{method: "POST", path: "/api/agents/register", body: `{"name":"Bot"}`}
		if contentType != "" {
			r.headers = []string{"Content-Type", contentType}
		}
		testutil.Equal(t, contentType, b.send(t, r).StatusCode, want)
	}
}

func TestOptionalFields(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	register := func(body string) map[string]any {
		return b.mustSend(t, request{method: "POST", path: "/api/agents/register", body: body})
	}
	t.Run("null is the same as omitted", func(t *testing.T) {
		t.Parallel()
		data := register(`{"name":"Bot","description":null,"capabilities":null,"price_per_task":null,"endpoint_url":null,"system_prompt":null,"webhook_url":null,"owner_email":null}`)
		if list, ok := data["capabilities"].([]any); !ok || len(list) != 0 {
			t.Errorf("capabilities: %v", data["capabilities"])
		}
		testutil.Equal(t, "secret", data["webhook_secret"], nil)
		testutil.Equal(t, "price", b.mustSend(t, request{method: "GET", path: "/api/agents/" + stringField(t, data, "id")})["price_per_task"], any(10.0))
	})
	t.Run("unknown members are ignored, the last duplicate is used", func(t *testing.T) {
		t.Parallel()
		testutil.Equal(t, "name", stringField(t, register(`{"name":"One","NAME":"Two","admin":true,"id":1,"name":"Three"}`), "name"), "Three")
	})
}

// TestWebhook_events checks that a request without events keeps the current events.
func TestWebhook_events(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	agent := b.registerAgent(t, "Bot", "")
	for _, tc := range []struct {
		events string // as a member of the request
		want   []any
	}{
		{"", []any{"task.posted"}},
		{`,"events":["task.completed","task.assigned","task.completed"]`, []any{"task.posted", "task.assigned", "task.completed"}},
		{"", []any{"task.posted", "task.assigned", "task.completed"}},
		{`,"events":null`, []any{"task.posted", "task.assigned", "task.completed"}},
		{`,"events":["task.posted"]`, []any{"task.posted"}},
		{`,"events":["task.expired"]`, []any{"task.posted", "task.expired"}},
		{`,"events":[]`, []any{"task.posted"}},
	} {
		b.mustSend(t, request{method: "PUT", path: "/api/agents/me/webhook", key: agent.key, body: `{"webhook_url":"https://bot.example.com/hook"` + tc.events + `}`})
		events := b.mustSend(t, request{method: "GET", path: "/api/agents/me/webhook", key: agent.key})["events"]
		if !reflect.DeepEqual(events, any(tc.want)) {
			t.Errorf("after %q: got events %v, want %v", tc.events, events, tc.want)
		}
	}
}

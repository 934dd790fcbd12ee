package compat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"agentmarket.space/server/graph"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// errorCase is a request and its expected error.
type errorCase struct {
	name    string
	request request
	status  int
	code    string
	message string // part of the message
}

func TestErrors(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	poster, worker := b.registerAgent(t, "Poster", ""), b.registerAgent(t, "Worker", `,"endpoint_url":"https://worker.example.com/run","price_per_task":20`)
	open, assigned := b.postTask(t, poster), b.postTask(t, poster)
	b.mustSend(t, request{method: "POST", path: "/api/tasks/" + assigned + "/accept", key: worker.key})
	before := b.stateSnapshot(t)

	cases := slices.Concat(
		commonErrorCases(worker.key, open),
		fieldErrorCases(poster.key, worker.key, worker.id, assigned),
		stateErrorCases(poster, worker, open, assigned),
	)
	for _, tc := range cases {
		res := b.send(t, tc.request)
		message, _ := res.body["error"].(string)
		if res.StatusCode != tc.status || res.body["code"] != tc.code || !strings.Contains(message, tc.message) {
			t.Errorf("%s: want %d %s with %q, got %d %.300s", tc.name, tc.status, tc.code, tc.message, res.StatusCode, res.raw)
		}
	}
	testutil.Equal(t, "state", b.stateSnapshot(t), before)
	b.VerifyLedger()
}

// commonErrorCases returns the errors that every route has in common.
func commonErrorCases(key, task string) []errorCase {
	var cases []errorCase
	for _, rt := range (&handler{}).routes() {
		path := strings.ReplaceAll(rt.path, "{id}", task)
		r := request{method: rt.method, path: path, key: key}
		add := func(what string, change func(*request), status int, code, message string) {
			changed := r
			change(&changed)
			cases = append(cases, errorCase{name: rt.name + ": " + what, request: changed, status: status, code: code, message: message})
		}
		add("unsupported method", func(r *request) { r.method = "PATCH" }, 405, "METHOD_NOT_ALLOWED", "method not allowed")
		add("trailing slash", func(r *request) { r.path += "/" }, 404, "NOT_FOUND", "no such route")
		add("double slash", func(r *request) { r.path = strings.Replace(path, "/api/", "/api//", 1) }, 404, "NOT_FOUND", "no such route")
		add("unknown key", func(r *request) { r.key = strings.Repeat("0", 64) }, 401, "UNAUTHENTICATED", "unknown API key")
		if rt.requiresKey {
			add("no key", func(r *request) { r.key = "" }, 401, "UNAUTHENTICATED", "X-API-Key")
		}
		if rt.method == "GET" {
			continue
		}
		for what, body := range map[string]string{
			"truncated": `{"name":"Bot"`, "not JSON": `name=Bot`, "two values": `{} {}`, "comment": `{/**/}`, "NUL byte": "{\"name\":\"a\x00b\"}",
			"deep": strings.Repeat(`{"a":`, 100_000), "deep array": strings.Repeat(`[`, 500_000), "incomplete number": `1e`,
		} {
			add(what, func(r *request) { r.body = body }, 400, "INVALID_INPUT", "not valid JSON")
		}
		for what, body := range map[string]string{"null": `null`, "array": `[{"name":"Bot"}]`, "text": `"name"`, "number": `7`, "boolean": `true`} {
			add(what, func(r *request) { r.body = body }, 400, "INVALID_INPUT", "must be a JSON object")
		}
		add("invalid UTF-8", func(r *request) { r.body = "{\"name\":\"\xff\xfe\"}" }, 400, "INVALID_INPUT", "valid UTF-8")
		add("5 MB", func(r *request) { r.body = `{"name":"` + strings.Repeat("a", 5<<20) + `"}` }, 413, "PAYLOAD_TOO_LARGE", "1048576 bytes")
		add("form", func(r *request) {
			r.body, r.headers = "name=Bot", []string{"Content-Type", "application/x-www-form-urlencoded"}
		}, 415, "UNSUPPORTED_MEDIA_TYPE", "application/json")
	}
	return cases
}

// fieldErrorCases returns the invalid fields of each route.
func fieldErrorCases(poster, worker, workerID, assigned string) []errorCase {
	var cases []errorCase
	send := func(method, path, key, valid string) func(message string, members ...string) {
		return func(message string, members ...string) {
			for _, member := range members {
				body := "{" + strings.Trim(valid+","+member, ",") + "}" // the last of two members with the same name is used
				cases = append(cases, errorCase{
					name: fmt.Sprintf("%s %s %.80s", method, path, member), status: 400, code: "INVALID_INPUT", message: message,
					request: request{method: method, path: path, key: key, body: body},
				})
			}
		}
	}
	wholeNumbers := func(name string) []string {
		var members []string
		for _, value := range []string{`"25"`, `25.5`, `1e-2`, `true`, `[]`, `{}`, `99999999999999999999`, `-99999999999999999999`, `1e400`} {
			members = append(members, `"`+name+`":`+value)
		}
		return members
	}

	register := send("POST", "/api/agents/register", "", `"name":"Bot"`)
	register("name is required", `"name":null`)
	register("name must be a string", `"name":7`, `"name":["Bot"]`, `"name":{}`)
	register("name must not be empty", `"name":""`, `"name":" "`)
	register("name must have at most 100", `"name":"`+strings.Repeat("a", 101)+`"`)
	register("name must not have NUL", `"name":"a\u0000b"`)
	register("capabilities must be an array of strings", `"capabilities":"coding"`, `"capabilities":[1]`, `"capabilities":{"a":1}`, `"capabilities":[["a"]]`)
	register("capabilities must", `"capabilities":[""]`, `"capabilities":[null]`, `"capabilities":["`+strings.Repeat("a", 51)+`"]`)
	register("price_per_task must be a whole number", wholeNumbers("price_per_task")...)
	register("price_per_task must be from 1", `"price_per_task":0`, `"price_per_task":-1`, `"price_per_task":1000000001`)
	register("endpoint_url must", `"endpoint_url":"http://bot.example.com"`, `"endpoint_url":7`, `"endpoint_url":"https://127.0.0.1/"`)
	register("webhook_url must", `"webhook_url":"ftp://bot.example.com"`, `"webhook_url":"bot"`, `"webhook_url":"https://localhost/x"`, `"webhook_url":"https://a\u0000b.com/"`)
	register("system_prompt must have at most 20000", `"system_prompt":"`+strings.Repeat("a", 20_001)+`"`)
	register("owner_email must", `"owner_email":"nobody"`, `"owner_email":false`)

	post := send("POST", "/api/tasks", poster, `"title":"T","description":"D","budget":25`)
	post("is required", `"title":null`, `"description":null`, `"budget":null`)
	post("budget must be a whole number", wholeNumbers("budget")...)
	post("budget must be from 2", `"budget":0`, `"budget":1`, `"budget":-25`, `"budget":1000000001`, `"budget":9223372036854775807`)
	post("title must", `"title":""`, `"title":7`, `"title":"\u0000"`, `"title":"`+strings.Repeat("a", 201)+`"`)
	post("description must", `"description":" "`, `"description":{}`, `"description":"`+strings.Repeat("a", 50_001)+`"`)
	post("required_capabilities must", `"required_capabilities":"research"`, `"required_capabilities":[1]`, `"required_capabilities":[" "]`)
	post("open_for_minutes must", append(wholeNumbers("open_for_minutes"), `"open_for_minutes":0`)...)
	post("lease_minutes must", append(wholeNumbers("lease_minutes"), `"lease_minutes":43201`)...)

	complete := send("POST", "/api/tasks/"+assigned+"/complete", worker, "")
	complete("result is required", "", `"result":null`, `"Result":"done"`)
	complete("result must", `"result":""`, `"result":7`, `"result":"a\u0000b"`, `"result":"`+strings.Repeat("a", 200_001)+`"`)

	execute := send("POST", "/api/execute", poster, `"agent_id":"`+workerID+`","task_description":"Do it","budget":20`)
	execute("is required", `"agent_id":null`, `"task_description":null`, `"budget":null`)
	execute("budget must be a whole number", wholeNumbers("budget")...)
	execute("budget must be", `"budget":0`, `"budget":-1`, `"budget":19`)
	execute("task_description must", `"task_description":""`, `"task_description":7`, `"task_description":"\u0000"`)
	execute("agent_id must be a string", `"agent_id":7`)

	webhook := send("PUT", "/api/agents/me/webhook", worker, "")
	webhook("webhook_url is required", "", `"webhook_url":null`, `"url":"https://bot.example.com"`)
	webhook("webhook_url must", `"webhook_url":""`, `"webhook_url":7`, `"webhook_url":"http://bot.example.com"`, `"webhook_url":"https://10.0.0.1/"`, `"webhook_url":"https://[::1]/"`)
	webhook("events must", `"webhook_url":"https://bot.example.com/","events":["task.rated"]`, `"webhook_url":"https://bot.example.com/","events":"task.assigned"`)

	extend := send("POST", "/api/tasks/"+assigned+"/extend", worker, "")
	extend("lease_minutes must", append(wholeNumbers("lease_minutes"), `"lease_minutes":0`, `"lease_minutes":-1`, `"lease_minutes":43201`)...)

	rate := send("POST", "/api/tasks/"+assigned+"/rate", poster, `"score":5`)
	rate("score is required", `"score":null`)
	rate("score must", append(wholeNumbers("score"), `"score":0`, `"score":6`)...)
	rate("comment must", `"comment":7`, `"comment":"`+strings.Repeat("a", 1001)+`"`)

	lists := func(path, message string, queries ...string) {
		for _, query := range queries {
			cases = append(cases, errorCase{
				name: path + query, status: 400, code: "INVALID_INPUT", message: message, request: request{method: "GET", path: path + query},
			})
		}
	}
	for _, path := range []string{"/api/agents", "/api/tasks"} {
		lists(path, "limit must be a whole number", "?limit=ten", "?limit=1.5", "?limit=1e1", "?limit=0x10", "?limit=%00")
		lists(path, "cursor must", "?cursor=nonsense", "?cursor=%00", "?cursor=..")
		lists(path, "capability must", "?capability=%ff", "?capability=a%00b")
		lists(path, "query string", "?limit=%zz", "?a;b")
	}
	lists("/api/tasks", "status must be one of", "?status=OPEN", "?status=lost", "?status=open&status=lost", "?status=%27")
	return cases
}

// stateErrorCases returns requests that the state of the market does not allow.
func stateErrorCases(poster, worker caller, open, assigned string) []errorCase {
	const unknown = "0195f0a4-7c00-7000-8000-000000000000"
	tc := func(agent caller, method, path, body string, status int, code string) errorCase {
		return errorCase{name: method + " " + path + " " + body, status: status, code: code, request: request{method: method, path: path, key: agent.key, body: body}}
	}
	cases := []errorCase{
		tc(poster, "GET", "/api", "", 404, "NOT_FOUND"),
		tc(poster, "GET", "/api/", "", 404, "NOT_FOUND"),
		tc(poster, "GET", "/api/unknown", "", 404, "NOT_FOUND"),
		tc(poster, "GET", "/api/agents/register", "", 405, "METHOD_NOT_ALLOWED"),
		tc(poster, "POST", "/openapi.json", "", 405, "METHOD_NOT_ALLOWED"),
		tc(poster, "POST", "/api/tasks", `{"title":"T","description":"D","budget":51}`, 402, "INSUFFICIENT_CREDITS"),
		tc(poster, "POST", "/api/tasks/"+open+"/accept", "", 403, "FORBIDDEN"),
		tc(poster, "POST", "/api/tasks/"+assigned+"/accept", "", 403, "FORBIDDEN"),
		tc(worker, "POST", "/api/tasks/"+assigned+"/accept", "", 409, "CONFLICT"),
		tc(poster, "POST", "/api/tasks/"+assigned+"/complete", `{"result":"done"}`, 403, "FORBIDDEN"),
		tc(worker, "POST", "/api/tasks/"+open+"/complete", `{"result":"done"}`, 409, "CONFLICT"),
		tc(worker, "POST", "/api/tasks/"+open+"/release", "", 409, "CONFLICT"),
		tc(worker, "POST", "/api/tasks/"+open+"/extend", "", 409, "CONFLICT"),
		tc(worker, "POST", "/api/tasks/"+open+"/cancel", "", 403, "FORBIDDEN"),
		tc(poster, "POST", "/api/tasks/"+assigned+"/cancel", "", 409, "CONFLICT"),
		tc(worker, "POST", "/api/tasks/"+assigned+"/rate", `{"score":5}`, 403, "FORBIDDEN"),
		tc(poster, "POST", "/api/tasks/"+assigned+"/rate", `{"score":5}`, 409, "CONFLICT"),
		tc(worker, "POST", "/api/execute", `{"agent_id":"`+worker.id+`","task_description":"D","budget":25}`, 403, "FORBIDDEN"),
		tc(worker, "POST", "/api/execute", `{"agent_id":"`+poster.id+`","task_description":"D","budget":25}`, 409, "CONFLICT"),
		tc(poster, "POST", "/api/execute", `{"agent_id":"`+worker.id+`","task_description":"D","budget":51}`, 402, "INSUFFICIENT_CREDITS"),
		tc(poster, "POST", "/api/execute", `{"agent_id":"`+unknown+`","task_description":"D","budget":25}`, 404, "NOT_FOUND"),
		tc(poster, "POST", "/api/execute", `{"agent_id":"\u0000","task_description":"D","budget":25}`, 404, "NOT_FOUND"),
	}
	for _, id := range []string{unknown, "unknown", "%00", "%ff", "%2e%2e", "a%2fb", "'%20OR%20'1'='1", strings.Repeat("a", 4000)} {
		cases = append(cases,
			tc(worker, "GET", "/api/agents/"+id, "", 404, "NOT_FOUND"),
			tc(worker, "GET", "/api/tasks/"+id, "", 404, "NOT_FOUND"),
			tc(worker, "POST", "/api/tasks/"+id+"/accept", "", 404, "NOT_FOUND"),
			tc(worker, "POST", "/api/tasks/"+id+"/complete", `{"result":"done"}`, 404, "NOT_FOUND"),
			tc(worker, "POST", "/api/tasks/"+id+"/cancel", "", 404, "NOT_FOUND"),
			tc(worker, "POST", "/api/tasks/"+id+"/release", "", 404, "NOT_FOUND"),
			tc(worker, "POST", "/api/tasks/"+id+"/extend", "", 404, "NOT_FOUND"),
			tc(worker, "POST", "/api/tasks/"+id+"/rate", `{"score":5}`, 404, "NOT_FOUND"),
		)
	}
	return cases
}

func TestAllowHeader(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for path, want := range map[string]string{
		"/api/agents/register":   "POST",
		"/api/agents":            "GET, HEAD",
		"/api/agents/me":         "GET, HEAD",
		"/api/agents/me/webhook": "DELETE, GET, HEAD, PUT",
		"/api/tasks":             "GET, HEAD, POST",
		"/api/tasks/x/accept":    "POST",
		"/openapi.json":          "GET, HEAD",
	} {
		for _, method := range []string{"PATCH", "OPTIONS", "TRACE"} {
			testutil.Equal(t, method+" "+path, b.send(t, request{method: method, path: path}).Header.Get("Allow"), want)
		}
	}
}

// TestExecute_failureRefunds checks the code of a failed hire, and that the poster pays
// nothing.
func TestExecute_failureRefunds(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	poster, worker := b.registerAgent(t, "Poster", ""), b.registerAgent(t, "Worker", `,"system_prompt":"Work"`)
	for _, tc := range []struct {
		code   models.Code
		status int
	}{{models.ExecutionFailed, 502}, {models.ExecutionTimeout, 504}} {
		b.FakeRunner.ResultFunc = func(context.Context, *models.Agent, *models.Task) (string, error) {
			return "", models.Errorf(tc.code, "the agent failed")
		}
		res := b.send(t, request{
			method: "POST", path: "/api/execute", key: poster.key,
			body: `{"agent_id":"` + worker.id + `","task_description":"Do it","budget":15}`,
		})
		testutil.Equal(t, "status", res.StatusCode, tc.status)
		testutil.Equal(t, "code", stringField(t, res.body, "code"), string(tc.code))
		testutil.Equal(t, "balance", res.body["balance"], any(100.0))
	}
	b.VerifyLedger()
}

// TestInternalError_loggedOnce checks that an internal error is logged once, with the
// request id, and is not sent to the client.
func TestInternalError_loggedOnce(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	var logs bytes.Buffer
	h := &handler{resolver: &graph.Resolver{Market: b.Market}, logger: slog.New(slog.NewTextHandler(&logs, nil))}
	agent := b.registerAgent(t, "Agent", "")
	ctx := auth.WithActor(auth.WithRequest(t.Context(), &auth.Request{ID: "r-1"}), auth.Actor{AgentID: agent.id})
	w := httptest.NewRecorder()
	h.writeError(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/api/wallet", nil), errors.New("secret path"))
	testutil.Equal(t, "body", w.Body.String(), `{"success":false,"error":"internal error","code":"INTERNAL","balance":100}`)
	if log := logs.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, "secret path") || !strings.Contains(log, "request_id=r-1") {
		t.Errorf("got log %q", log)
	}
}

func TestWriteError(t *testing.T) {
	t.Parallel()
	write := func(err error, balance *models.Credits) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		WriteError(w, httptest.NewRequest(http.MethodGet, "/api/wallet", nil), err, balance)
		parseEnvelope(t, w.Code, w.Header(), w.Body.Bytes())
		return w
	}
	t.Run("internal error does not leak", func(t *testing.T) {
		t.Parallel()
		w := write(fmt.Errorf("open database: %w", errors.New("secret path")), nil)
		testutil.Equal(t, "status", w.Code, 500)
		testutil.Equal(t, "body", w.Body.String(), `{"success":false,"error":"internal error","code":"INTERNAL"}`)
	})
	t.Run("rate limit has Retry-After", func(t *testing.T) {
		t.Parallel()
		w := write(&models.Error{Code: models.RateLimited, Message: "slow down", RetryAfter: 1500 * time.Millisecond}, new(models.Credits(0)))
		testutil.Equal(t, "status", w.Code, 429)
		testutil.Equal(t, "Retry-After", w.Header().Get("Retry-After"), "2")
		testutil.Equal(t, "body", w.Body.String(), `{"success":false,"error":"slow down","code":"RATE_LIMITED","balance":0}`)
	})
	t.Run("fields have their REST names", func(t *testing.T) {
		t.Parallel()
		for field, want := range map[string]string{
			"webhookUrl": "webhook_url", "url": "webhook_url", "endpointUrl": "endpoint_url", "taskDescription": "task_description",
			"pricePerTask": "price_per_task", "requiredCapabilities": "required_capabilities", "ownerEmail": "owner_email",
			"first": "limit", "after": "cursor", "filter": "capability", "title": "title", "Idempotency-Key": "Idempotency-Key",
		} {
			testutil.Equal(t, field, restMessage(models.FieldErrorf(field, "must be shorter")), want+" must be shorter")
		}
		testutil.Equal(t, "no prefix", restMessage(&models.Error{Field: "url", Message: "no such host"}), "no such host")
	})
	t.Run("every code has an error status, only INTERNAL has 500", func(t *testing.T) {
		t.Parallel()
		for _, code := range ErrorCodes() {
			if status := HTTPStatus(code); status < 400 || status > 599 || http.StatusText(status) == "" || (status == 500) != (code == models.Internal) {
				t.Errorf("%s: %d", code, status)
			}
		}
	})
}

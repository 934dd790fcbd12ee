package graph

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/models"
)

// TestErrors_invalidInput checks that an invalid input fails with INVALID_INPUT and the name
// of the field, and changes nothing.
func TestErrors_invalidInput(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	poster, worker := b.registerAgent(t, ""), b.registerAgent(t, `endpointUrl: "https://agent.example.com/run"`)
	task := b.postTask(t, poster, "budget: 5")
	b.mustQuery(t, worker, fmt.Sprintf(`mutation { acceptTask(input: {taskId: %q}) { task { id } } }`, task))
	long := func(n int) string { return strings.Repeat("a", n) }
	for document, field := range map[string]string{
		`mutation { registerAgent(input: {name: " "}) { apiKey } }`:                                                                  "name",
		`mutation { registerAgent(input: {name: "` + long(101) + `"}) { apiKey } }`:                                                  "name",
		`mutation { registerAgent(input: {name: "A\u0000"}) { apiKey } }`:                                                            "name",
		`mutation { registerAgent(input: {name: "A", description: "` + long(2001) + `"}) { apiKey } }`:                               "description",
		`mutation { registerAgent(input: {name: "A", capabilities: ["` + long(51) + `"]}) { apiKey } }`:                              "capabilities",
		`mutation { registerAgent(input: {name: "A", pricePerTask: -1}) { apiKey } }`:                                                "pricePerTask",
		`mutation { registerAgent(input: {name: "A", ownerEmail: "nobody"}) { apiKey } }`:                                            "ownerEmail",
		`mutation { registerAgent(input: {name: "A", endpointUrl: "http://a.example.com"}) { apiKey } }`:                             "endpointUrl",
		`mutation { registerAgent(input: {name: "A", webhookUrl: "https://10.0.0.1/"}) { apiKey } }`:                                 "webhookUrl",
		`mutation { updateAgent(input: {name: null}) { agent { id } } }`:                                                             "name",
		`mutation { updateAgent(input: {pricePerTask: null}) { agent { id } } }`:                                                     "pricePerTask",
		`mutation { updateAgent(input: {pricePerTask: 0}) { agent { id } } }`:                                                        "pricePerTask",
		`mutation { updateAgent(input: {systemPrompt: "` + long(20_001) + `"}) { agent { id } } }`:                                   "systemPrompt",
		`mutation { postTask(input: {title: "", description: "D", budget: 5}) { task { id } } }`:                                     "title",
		`mutation { postTask(input: {title: "T", description: " ", budget: 5}) { task { id } } }`:                                    "description",
		`mutation { postTask(input: {title: "T", description: "D", budget: 1}) { task { id } } }`:                                    "budget",
		`mutation { postTask(input: {title: "T", description: "D", budget: 1000000001}) { task { id } } }`:                           "budget",
		`mutation { postTask(input: {title: "T", description: "D", budget: 5, openForMinutes: 0}) { task {id}}}`:                     "openForMinutes",
		`mutation { postTask(input: {title: "T", description: "D", budget: 5, leaseMinutes: 43201}) {task {id}}}`:                    "leaseMinutes",
		`mutation { postTask(input: {title: "T", description: "D", budget: 5, requiredCapabilities: [""]}) {task {id}}}`:             "requiredCapabilities",
		`mutation { extendTask(input: {taskId: "` + task + `", leaseMinutes: -1}) { task { id } } }`:                                 "leaseMinutes",
		`mutation { completeTask(input: {taskId: "` + task + `", result: ""}) { task { id } } }`:                                     "result",
		`mutation { rateTask(input: {taskId: "` + task + `", score: 6}) { task { id } } }`:                                           "score",
		`mutation { rateTask(input: {taskId: "` + task + `", score: 1, comment: "` + long(1001) + `"}) { task { id } } }`:            "comment",
		`mutation { execute(input: {agentId: "` + poster.id + `", taskDescription: "", budget: 20}) { result } }`:                    "taskDescription",
		`mutation { execute(input: {agentId: "` + poster.id + `", taskDescription: "D", budget: 0}) { result } }`:                    "budget",
		`mutation { setWebhook(input: {url: "https://localhost/x"}) { secret } }`:                                                    "url",
		`mutation { redeliverWebhooks(input: {since: "2026-01-01T00:00:00Z", first: 201}) { redeliveredCount } }`:                    "first",
		`mutation { redeliverWebhooks(input: {since: "2026-01-01T00:00:00Z", after: "x"}) { redeliveredCount } }`:                    "after",
		`mutation { redeliverWebhooks(input: {since: "2026-01-01T00:00:00Z", after: "{` + task + `}"}) { endCursor } }`:              "after",
		`{ viewer { wallet { entries(filter: {taskId: "\u0000"}) { nodes { id } } } } }`:                                             "taskId",
		`mutation { redeliverWebhooks(input: {since: "2026-01-01T00:00:00Z", until: "2026-01-01T00:00:00Z"}) { redeliveredCount } }`: "until",
		`mutation { rotateWebhookSecret(input: {overlapMinutes: 1441}) { secret } }`:                                                 "overlapMinutes",
		`mutation { postTask(input: {title: "T", description: "D", budget: 2.5}) { task { id } } }`:                                  "budget",
		`mutation { postTask(input: {title: "T", description: "D", budget: "5"}) { task { id } } }`:                                  "budget",
		`mutation { setWebhook(input: {url: ["https://a.example.com"]}) { secret } }`:                                                "url",
		`{ tasks(filter: {minBudget: true}) { totalCount } }`:                                                                        "minBudget",
		`{ tasks(first: 0) { totalCount } }`:                                                                                         "first",
		`{ agents(first: 101) { totalCount } }`:                                                                                      "first",
		`{ viewer { postedTasks(first: -1) { totalCount } } }`:                                                                       "first",
		`{ nodes(ids: [` + strings.Repeat(`"x" `, 51) + `]) { id } }`:                                                                "ids",
	} {
		t.Run(document[:min(len(document), 90)], func(t *testing.T) {
			t.Parallel()
			assertError(t, "it", b.query(t, worker, document), models.InvalidInput, field)
		})
	}
}

// TestErrors_codes checks the error code of each failure.
func TestErrors_codes(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	poster, worker := b.registerAgent(t, ""), b.registerAgent(t, `endpointUrl: "https://agent.example.com/run", pricePerTask: 2`)
	idle := b.registerAgent(t, "")
	open, done := b.postTask(t, poster, "budget: 5"), b.completedTask(t, poster, worker)
	hire := fmt.Sprintf(`mutation { execute(input: {agentId: %q, taskDescription: "D", budget: 2}) { result } }`, worker.id)
	on := func(verb, id, more string) string {
		return fmt.Sprintf(`mutation { %s(input: {taskId: %q %s}) { task { id } } }`, verb, id, more)
	}
	for name, row := range map[string]struct {
		caller   caller
		document string
		code     models.Code
	}{
		"a stranger posts":               {caller{}, `mutation { postTask(input: {title: "T", description: "D", budget: 5}) { task { id } } }`, models.Unauthenticated},
		"one accepts its own task":       {poster, on("acceptTask", open, ""), models.Forbidden},
		"one hires itself":               {worker, hire, models.Forbidden},
		"an unknown task":                {worker, on("acceptTask", "nothing", ""), models.NotFound},
		"an unknown task is looked at":   {worker, `{ task(id: "nothing") { id } }`, models.NotFound},
		"an unknown agent is looked at":  {worker, `{ agent(id: "nothing") { id } }`, models.NotFound},
		"an unknown agent is hired":      {poster, `mutation { execute(input: {agentId: "nothing", taskDescription: "D", budget: 5}) { result } }`, models.NotFound},
		"an unknown delivery":            {worker, `mutation { redeliverWebhook(input: {deliveryId: "nothing"}) { delivery { id } } }`, models.NotFound},
		"more than there is":             {worker, `mutation { postTask(input: {title: "T", description: "D", budget: 1000}) { task { id } } }`, models.InsufficientFunds},
		"a task that was done":           {worker, on("acceptTask", done, ""), models.Conflict},
		"a task that nobody works on":    {worker, on("completeTask", open, `, result: "R"`), models.Conflict},
		"an agent that takes no hires":   {poster, fmt.Sprintf(`mutation { execute(input: {agentId: %q, taskDescription: "D", budget: 20}) { result } }`, idle.id), models.Conflict},
		"a ping without a webhook":       {worker, `mutation { pingWebhook { delivered } }`, models.Conflict},
		"resuming without a webhook":     {worker, `mutation { resumeWebhook { webhook { status } } }`, models.Conflict},
		"sending to no webhook":          {worker, `mutation { redeliverWebhooks(input: {since: "2026-01-01T00:00:00Z"}) { redeliveredCount } }`, models.Conflict},
		"a secret without a webhook":     {worker, `mutation { rotateWebhookSecret(input: {}) { secret } }`, models.Conflict},
		"a document that does not parse": {worker, `{ tasks `, models.InvalidInput},
		"a field that is not there":      {worker, `{ tasks { apiKey } }`, models.InvalidInput},
		"an input that has a wrong type": {worker, `mutation { postTask(input: {title: 7, description: "D", budget: 5}) { task { id } } }`, models.InvalidInput},
		"a status that is not there":     {worker, `{ tasks(filter: {status: [GONE]}) { totalCount } }`, models.InvalidInput},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := b.query(t, row.caller, row.document)
			assertError(t, "it", got, row.code, "")
			if len(got.Errors) == 1 && got.Data != nil && got.Errors[0].Extensions["requestId"] != "request" {
				t.Errorf("the error does not name its request: %v", got.Errors[0].Extensions)
			}
		})
	}
}

// TestErrors_internal checks that an internal error is logged once and that the client only
// sees INTERNAL.
func TestErrors_internal(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	b := newBundle(t)
	poster, worker := b.registerAgent(t, ""), b.registerAgent(t, `endpointUrl: "https://agent.example.com/run", pricePerTask: 2`)
	hire := func() gqlResponse {
		return b.query(t, poster, fmt.Sprintf(`mutation { execute(input: {agentId: %q, taskDescription: "D", budget: 2}) { result } }`, worker.id))
	}
	for _, failure := range []*models.Error{
		models.Errorf(models.ExecutionFailed, "it broke"),
		models.Errorf(models.ExecutionTimeout, "too slow"),
		models.Errorf(models.Unavailable, "too many hires at once"),
	} {
		b.FakeRunner.ResultFunc = func(context.Context, *models.Agent, *models.Task) (string, error) { return "", failure }
		got := hire()
		assertError(t, "a hire", got, failure.Code, "")
		if got.Errors[0].Message != failure.Message {
			t.Errorf("told %q, want %q", got.Errors[0].Message, failure.Message)
		}
	}
	b.Settings.RegistrationInterval, b.Settings.RegistrationBurst = 1500*time.Millisecond, 0
	limited := b.query(t, caller{}, `mutation { registerAgent(input: {name: "A"}) { apiKey } }`)
	assertError(t, "one registration too many", limited, models.RateLimited, "")
	if limited.header.Get("Retry-After") != "2" || fmt.Sprint(limited.Errors[0].Extensions["retryAfter"]) != "2" {
		t.Errorf("come back after %q, %v", limited.header.Get("Retry-After"), limited.Errors[0].Extensions)
	}

	ctx := auth.WithRequest(t.Context(), &auth.Request{ID: "r1"})
	cause := errors.New("dial 10.0.0.7: hunter2")
	presented := errorPresenter(slog.New(slog.NewTextHandler(&log, nil)), true)(ctx, fmt.Errorf("read tasks: %w", cause))
	if presented.Message != "internal error" || presented.Extensions["code"] != string(models.Internal) {
		t.Errorf("a fault is shown as %v", presented)
	}
	if n := strings.Count(log.String(), "hunter2"); n != 1 || !strings.Contains(log.String(), "r1") {
		t.Errorf("the fault is logged %d times: %s", n, log.String())
	}
	late := PresentError(ctx, fmt.Errorf("read tasks: %w", context.DeadlineExceeded))
	if late.Extensions["code"] != string(models.Unavailable) {
		t.Errorf("a query that takes too long is %v", late.Extensions)
	}
}

// TestErrors_httpRequests checks the error codes of invalid HTTP requests.
func TestErrors_httpRequests(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	const query = `{"query":"{ __typename }"}`
	for name, row := range map[string]struct {
		method, query, body, contentType string
		status                           int
		code                             models.Code
	}{
		"a body past a megabyte": {http.MethodPost, "", strings.Repeat(" ", 1<<20) + query, "application/json", 413, models.PayloadTooLarge},
		"a form":                 {http.MethodPost, "", "query={__typename}", "application/x-www-form-urlencoded", 415, models.UnsupportedMedia},
		"a batch":                {http.MethodPost, "", "[" + query + "]", "application/json", 400, models.InvalidInput},
		"a mutation by link":     {http.MethodGet, "?query=mutation{rotateApiKey{apiKey}}", "", "", 405, models.MethodNotAllowed},
		"another method":         {http.MethodPut, "", query, "application/json", 405, models.MethodNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := b.send(t, caller{}, row.method, row.query, []byte(row.body), "Content-Type", row.contentType)
			assertError(t, "it", got, row.code, "")
			if got.status != row.status {
				t.Errorf("status %d, want %d", got.status, row.status)
			}
		})
	}
}

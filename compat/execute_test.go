package compat

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// hireRequest returns a request to hire an agent for 15 credits.
func hireRequest(poster, worker caller, headers ...string) request {
	return request{
		method: http.MethodPost, path: "/api/execute", key: poster.key, headers: headers,
		body: fmt.Sprintf(`{"agent_id":%q,"task_description":"Do it","budget":15}`, worker.id),
	}
}

// TestExecute_respondAsync checks that a request with this preference gets the id and
// the path of the task at once. Other preferences are ignored.
func TestExecute_respondAsync(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.Settings.StartingCredits = 1000
	poster, worker := b.registerAgent(t, "Poster", ""), b.registerAgent(t, "Worker", `,"system_prompt":"Work"`)
	for i, prefer := range []string{"respond-async", "Respond-Async", "wait=5, respond-async", "respond-async; x=1,y", "handling=lenient ,\trespond-async"} {
		key := fmt.Sprint("key ", i)
		finish := make(chan struct{})
		b.FakeRunner.ResultFunc = func(context.Context, *models.Agent, *models.Task) (string, error) {
			<-finish
			return "done", nil
		}
		accepted := b.send(t, hireRequest(poster, worker, "Prefer", prefer, "Idempotency-Key", key))
		data := objectField(t, accepted.body, "data")
		id := stringField(t, data, "task_id")
		testutil.Equal(t, prefer, accepted.StatusCode, http.StatusAccepted)
		testutil.Equal(t, "status", stringField(t, data, "status"), "assigned")
		testutil.Equal(t, "Preference-Applied", accepted.Header.Get("Preference-Applied"), "respond-async")
		testutil.Equal(t, "Location", accepted.Header.Get("Location"), "/api/tasks/"+id)
		close(finish)
		b.WaitExecutions(t.Context())
		task := b.mustSend(t, request{method: http.MethodGet, path: accepted.Header.Get("Location"), key: poster.key})
		testutil.Equal(t, "result", stringField(t, task, "result"), "done")
		replayed := b.send(t, hireRequest(poster, worker, "Prefer", prefer, "Idempotency-Key", key))
		testutil.Equal(t, "the same key", string(replayed.raw), string(accepted.raw))
		testutil.Equal(t, "replayed", replayed.Header.Get("Idempotency-Replayed"), "true")
		testutil.Equal(t, "the same key without the preference", b.send(t, hireRequest(poster, worker, "Idempotency-Key", key)).StatusCode, http.StatusUnprocessableEntity)
	}
	for _, prefer := range []string{"", "wait=5", "respond-asynchronously", `x="respond-async"`, "return=minimal"} {
		resp := b.send(t, hireRequest(poster, worker, "Prefer", prefer))
		testutil.Equal(t, prefer, resp.StatusCode, http.StatusOK)
		testutil.Equal(t, "result", stringField(t, objectField(t, resp.body, "data"), "result"), "done")
		testutil.Equal(t, "headers", resp.Header.Get("Preference-Applied")+resp.Header.Get("Location"), "")
	}
	forbidden := b.send(t, hireRequest(worker, worker, "Prefer", "respond-async"))
	testutil.Equal(t, "hiring oneself", forbidden.StatusCode, http.StatusForbidden)
	testutil.Equal(t, "headers", forbidden.Header.Get("Preference-Applied")+forbidden.Header.Get("Location"), "")
	b.VerifyLedger()
}

// TestExecute_asyncResult checks a hire whose agent responds with 202 and completes
// the task later. A poster whose wait times out gets 202 with the running task, not an
// error.
func TestExecute_asyncResult(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.Settings.ExecuteTimeout = time.Millisecond
	poster, worker := b.registerAgent(t, "Poster", ""), b.registerAgent(t, "Worker", `,"system_prompt":"Work"`)
	b.FakeRunner.OutcomeFunc = promiseResult
	pending := b.send(t, hireRequest(poster, worker, "Idempotency-Key", "k"))
	data := objectField(t, pending.body, "data")
	id := stringField(t, data, "task_id")
	testutil.Equal(t, "status after the timeout", pending.StatusCode, http.StatusAccepted)
	testutil.Equal(t, "body", string(pending.raw), `{"success":true,"data":{"task_id":"`+id+`","status":"assigned"},"balance":85}`)
	testutil.Equal(t, "Location", pending.Header.Get("Location"), "/api/tasks/"+id)
	testutil.Equal(t, "Preference-Applied", pending.Header.Get("Preference-Applied"), "")
	testutil.Equal(t, "the same key", string(b.send(t, hireRequest(poster, worker, "Idempotency-Key", "k")).raw), string(pending.raw))

	complete := func(by caller) apiResponse {
		return b.send(t, request{method: http.MethodPost, path: "/api/tasks/" + id + "/complete", key: by.key, body: `{"result":"done"}`})
	}
	testutil.Equal(t, "another agent", complete(b.registerAgent(t, "Stranger", "")).StatusCode, http.StatusNotFound)
	testutil.Equal(t, "the poster", complete(poster).StatusCode, http.StatusForbidden)
	completed := complete(worker)
	testutil.Equal(t, "the agent", completed.StatusCode, http.StatusOK)
	testutil.Equal(t, "its balance", completed.body["balance"], any(113.0))
	testutil.Equal(t, "the agent, again", complete(worker).StatusCode, http.StatusConflict)
	replayed := b.send(t, hireRequest(poster, worker, "Idempotency-Key", "k"))
	testutil.Equal(t, "the same key, after completion", string(replayed.raw), `{"success":true,"data":{"task_id":"`+id+`","result":"done"},"balance":85}`)
	b.VerifyLedger()
}

// TestCancel_hire checks that a running hire can be cancelled and that a later result
// is rejected.
func TestCancel_hire(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	poster, worker := b.registerAgent(t, "Poster", ""), b.registerAgent(t, "Worker", `,"endpoint_url":"https://worker.example.com/run"`)
	b.FakeRunner.OutcomeFunc = promiseResult
	id := stringField(t, objectField(t, b.send(t, hireRequest(poster, worker, "Prefer", "respond-async")).body, "data"), "task_id")
	send := func(by caller, verb string) apiResponse {
		return b.send(t, request{method: http.MethodPost, path: "/api/tasks/" + id + "/" + verb, key: by.key, body: `{"result":"late"}`})
	}
	testutil.Equal(t, "by the agent", send(worker, "cancel").StatusCode, http.StatusForbidden)
	cancelled := send(poster, "cancel")
	testutil.Equal(t, "status", stringField(t, objectField(t, cancelled.body, "data"), "status"), "cancelled")
	testutil.Equal(t, "balance", cancelled.body["balance"], any(100.0))
	testutil.Equal(t, "late result", send(worker, "complete").StatusCode, http.StatusConflict)
	testutil.Equal(t, "again", send(poster, "cancel").StatusCode, http.StatusConflict)
	b.VerifyLedger()
}

func promiseResult(context.Context, *models.Task, market.RunOptions) (market.RunResult, error) {
	return market.RunResult{Promised: true}, nil
}

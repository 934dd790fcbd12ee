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

// hireRequest hires an agent for 15 credits.
func hireRequest(poster, worker caller, headers ...string) request {
	return request{
		method: http.MethodPost, path: "/api/execute", key: poster.key, headers: headers,
		body: fmt.Sprintf(`{"agent_id":%q,"task_description":"Do it","budget":15}`, worker.id),
	}
}

// TestExecute_respondAsync: who prefers not to wait gets the task's id at once, and
// where to look for its end. Whatever else is preferred is passed over.
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
		started := b.send(t, hireRequest(poster, worker, "Prefer", prefer, "Idempotency-Key", key))
		data := objectField(t, started.body, "data")
		id := stringField(t, data, "task_id")
		testutil.Equal(t, prefer, started.StatusCode, http.StatusAccepted)
		testutil.Equal(t, "status", stringField(t, data, "status"), "assigned")
		testutil.Equal(t, "Preference-Applied", started.Header.Get("Preference-Applied"), "respond-async")
		testutil.Equal(t, "Location", started.Header.Get("Location"), "/api/tasks/"+id)
		close(finish)
		b.WaitExecutions(t.Context())
		ended := b.mustSend(t, request{method: http.MethodGet, path: started.Header.Get("Location"), key: poster.key})
		testutil.Equal(t, "result", stringField(t, ended, "result"), "done")
		again := b.send(t, hireRequest(poster, worker, "Prefer", prefer, "Idempotency-Key", key))
		testutil.Equal(t, "the same key", string(again.raw), string(started.raw))
		testutil.Equal(t, "replayed", again.Header.Get("Idempotency-Replayed"), "true")
		testutil.Equal(t, "the same key without the preference", b.send(t, hireRequest(poster, worker, "Idempotency-Key", key)).StatusCode, http.StatusUnprocessableEntity)
	}
	for _, prefer := range []string{"", "wait=5", "respond-asynchronously", `x="respond-async"`, "return=minimal"} {
		done := b.send(t, hireRequest(poster, worker, "Prefer", prefer))
		testutil.Equal(t, prefer, done.StatusCode, http.StatusOK)
		testutil.Equal(t, "result", stringField(t, objectField(t, done.body, "data"), "result"), "done")
		testutil.Equal(t, "headers", done.Header.Get("Preference-Applied")+done.Header.Get("Location"), "")
	}
	refused := b.send(t, hireRequest(worker, worker, "Prefer", "respond-async"))
	testutil.Equal(t, "hiring oneself", refused.StatusCode, http.StatusForbidden)
	testutil.Equal(t, "headers", refused.Header.Get("Preference-Applied")+refused.Header.Get("Location"), "")
	b.VerifyLedger()
}

// TestExecute_asyncResult: an agent that answers 202 completes the task with its own
// key. Who waited in vain is told that the hire goes on, never that it failed.
func TestExecute_asyncResult(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.Settings.ExecuteTimeout = time.Millisecond
	poster, worker := b.registerAgent(t, "Poster", ""), b.registerAgent(t, "Worker", `,"system_prompt":"Work"`)
	b.FakeRunner.OutcomeFunc = promiseResult
	waited := b.send(t, hireRequest(poster, worker, "Idempotency-Key", "k"))
	data := objectField(t, waited.body, "data")
	id := stringField(t, data, "task_id")
	testutil.Equal(t, "the end of waiting", waited.StatusCode, http.StatusAccepted)
	testutil.Equal(t, "body", string(waited.raw), `{"success":true,"data":{"task_id":"`+id+`","status":"assigned"},"balance":85}`)
	testutil.Equal(t, "Location", waited.Header.Get("Location"), "/api/tasks/"+id)
	testutil.Equal(t, "Preference-Applied", waited.Header.Get("Preference-Applied"), "")
	testutil.Equal(t, "the same key", string(b.send(t, hireRequest(poster, worker, "Idempotency-Key", "k")).raw), string(waited.raw))

	complete := func(by caller) apiResponse {
		return b.send(t, request{method: http.MethodPost, path: "/api/tasks/" + id + "/complete", key: by.key, body: `{"result":"kept"}`})
	}
	testutil.Equal(t, "a stranger", complete(b.registerAgent(t, "Stranger", "")).StatusCode, http.StatusNotFound)
	testutil.Equal(t, "the poster", complete(poster).StatusCode, http.StatusForbidden)
	kept := complete(worker)
	testutil.Equal(t, "the agent", kept.StatusCode, http.StatusOK)
	testutil.Equal(t, "its balance", kept.body["balance"], any(113.0))
	testutil.Equal(t, "the agent again", complete(worker).StatusCode, http.StatusConflict)
	ended := b.send(t, hireRequest(poster, worker, "Idempotency-Key", "k"))
	testutil.Equal(t, "the same key at last", string(ended.raw), `{"success":true,"data":{"task_id":"`+id+`","result":"kept"},"balance":85}`)
	b.VerifyLedger()
}

// TestCancel_hire: a hire under way can be taken back, and its agent's answer comes
// too late.
func TestCancel_hire(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	poster, worker := b.registerAgent(t, "Poster", ""), b.registerAgent(t, "Worker", `,"endpoint_url":"https://worker.example.com/run"`)
	b.FakeRunner.OutcomeFunc = promiseResult
	id := stringField(t, objectField(t, b.send(t, hireRequest(poster, worker, "Prefer", "respond-async")).body, "data"), "task_id")
	to := func(by caller, verb string) apiResponse {
		return b.send(t, request{method: http.MethodPost, path: "/api/tasks/" + id + "/" + verb, key: by.key, body: `{"result":"late"}`})
	}
	testutil.Equal(t, "by the agent", to(worker, "cancel").StatusCode, http.StatusForbidden)
	cancelled := to(poster, "cancel")
	testutil.Equal(t, "status", stringField(t, objectField(t, cancelled.body, "data"), "status"), "cancelled")
	testutil.Equal(t, "balance", cancelled.body["balance"], any(100.0))
	testutil.Equal(t, "a late answer", to(worker, "complete").StatusCode, http.StatusConflict)
	testutil.Equal(t, "again", to(poster, "cancel").StatusCode, http.StatusConflict)
	b.VerifyLedger()
}

func promiseResult(context.Context, *models.Task, market.RunOptions) (market.RunResult, error) {
	return market.RunResult{Promised: true}, nil
}

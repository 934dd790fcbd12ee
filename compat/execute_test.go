package compat

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// hiringOf hires an agent for 15 credits.
func hiringOf(poster, worker caller, headers ...string) request {
	return request{
		method: http.MethodPost, path: "/api/execute", key: poster.key, headers: headers,
		body: fmt.Sprintf(`{"agent_id":%q,"task_description":"Do it","budget":15}`, worker.id),
	}
}

// TestExecute_respondAsync: who prefers not to wait gets the task's id at once, and
// where to look for its end. Whatever else is preferred is passed over.
func TestExecute_respondAsync(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.Settings.StartingCredits = 1000
	poster, worker := b.register(t, "Poster", ""), b.register(t, "Worker", `,"system_prompt":"Work"`)
	for i, prefer := range []string{"respond-async", "Respond-Async", "wait=5, respond-async", "respond-async; x=1,y", "handling=lenient ,\trespond-async"} {
		key := fmt.Sprint("key ", i)
		finish := make(chan struct{})
		b.Hired.Answer = func(context.Context, *models.Agent, *models.Task) (string, error) {
			<-finish
			return "done", nil
		}
		started := b.send(t, hiringOf(poster, worker, "Prefer", prefer, "Idempotency-Key", key))
		data := object(t, started.body, "data")
		id := text(t, data, "task_id")
		equal(t, prefer, started.StatusCode, http.StatusAccepted)
		equal(t, "status", text(t, data, "status"), "assigned")
		equal(t, "Preference-Applied", started.Header.Get("Preference-Applied"), "respond-async")
		equal(t, "Location", started.Header.Get("Location"), "/api/tasks/"+id)
		close(finish)
		b.Wait(t.Context())
		ended := b.ok(t, request{method: http.MethodGet, path: started.Header.Get("Location"), key: poster.key})
		equal(t, "result", text(t, ended, "result"), "done")
		again := b.send(t, hiringOf(poster, worker, "Prefer", prefer, "Idempotency-Key", key))
		equal(t, "the same key", string(again.raw), string(started.raw))
		equal(t, "replayed", again.Header.Get("Idempotency-Replayed"), "true")
		equal(t, "the same key without the preference", b.send(t, hiringOf(poster, worker, "Idempotency-Key", key)).StatusCode, http.StatusUnprocessableEntity)
	}
	for _, prefer := range []string{"", "wait=5", "respond-asynchronously", `x="respond-async"`, "return=minimal"} {
		done := b.send(t, hiringOf(poster, worker, "Prefer", prefer))
		equal(t, prefer, done.StatusCode, http.StatusOK)
		equal(t, "result", text(t, object(t, done.body, "data"), "result"), "done")
		equal(t, "headers", done.Header.Get("Preference-Applied")+done.Header.Get("Location"), "")
	}
	refused := b.send(t, hiringOf(worker, worker, "Prefer", "respond-async"))
	equal(t, "hiring oneself", refused.StatusCode, http.StatusForbidden)
	equal(t, "headers", refused.Header.Get("Preference-Applied")+refused.Header.Get("Location"), "")
	b.Verified()
}

// TestExecute_promised: an agent that answers 202 completes the task with its own
// key. Who waited in vain is told that the hire goes on, never that it failed.
func TestExecute_promised(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.Settings.ExecuteTimeout = time.Millisecond
	poster, worker := b.register(t, "Poster", ""), b.register(t, "Worker", `,"system_prompt":"Work"`)
	b.Hired.Outcome = promise
	waited := b.send(t, hiringOf(poster, worker, "Idempotency-Key", "k"))
	data := object(t, waited.body, "data")
	id := text(t, data, "task_id")
	equal(t, "the end of waiting", waited.StatusCode, http.StatusAccepted)
	equal(t, "body", string(waited.raw), `{"success":true,"data":{"task_id":"`+id+`","status":"assigned"},"balance":85}`)
	equal(t, "Location", waited.Header.Get("Location"), "/api/tasks/"+id)
	equal(t, "Preference-Applied", waited.Header.Get("Preference-Applied"), "")
	equal(t, "the same key", string(b.send(t, hiringOf(poster, worker, "Idempotency-Key", "k")).raw), string(waited.raw))

	complete := func(by caller) reply {
		return b.send(t, request{method: http.MethodPost, path: "/api/tasks/" + id + "/complete", key: by.key, body: `{"result":"kept"}`})
	}
	equal(t, "a stranger", complete(b.register(t, "Stranger", "")).StatusCode, http.StatusNotFound)
	equal(t, "the poster", complete(poster).StatusCode, http.StatusForbidden)
	kept := complete(worker)
	equal(t, "the agent", kept.StatusCode, http.StatusOK)
	equal(t, "its balance", kept.body["balance"], any(113.0))
	equal(t, "the agent again", complete(worker).StatusCode, http.StatusConflict)
	ended := b.send(t, hiringOf(poster, worker, "Idempotency-Key", "k"))
	equal(t, "the same key at last", string(ended.raw), `{"success":true,"data":{"task_id":"`+id+`","result":"kept"},"balance":85}`)
	b.Verified()
}

// TestCancel_hire: a hire under way can be taken back, and its agent's answer comes
// too late.
func TestCancel_hire(t *testing.T) {
	t.Parallel()
	b := open(t)
	poster, worker := b.register(t, "Poster", ""), b.register(t, "Worker", `,"endpoint_url":"https://worker.example.com/run"`)
	b.Hired.Outcome = promise
	id := text(t, object(t, b.send(t, hiringOf(poster, worker, "Prefer", "respond-async")).body, "data"), "task_id")
	to := func(by caller, verb string) reply {
		return b.send(t, request{method: http.MethodPost, path: "/api/tasks/" + id + "/" + verb, key: by.key, body: `{"result":"late"}`})
	}
	equal(t, "by the agent", to(worker, "cancel").StatusCode, http.StatusForbidden)
	cancelled := to(poster, "cancel")
	equal(t, "status", text(t, object(t, cancelled.body, "data"), "status"), "cancelled")
	equal(t, "balance", cancelled.body["balance"], any(100.0))
	equal(t, "a late answer", to(worker, "complete").StatusCode, http.StatusConflict)
	equal(t, "again", to(poster, "cancel").StatusCode, http.StatusConflict)
	b.Verified()
}

func promise(context.Context, *models.Task, market.Terms) (market.Outcome, error) {
	return market.Outcome{Promised: true}, nil
}

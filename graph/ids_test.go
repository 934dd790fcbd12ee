package graph

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"agentmarket.space/server/models"
)

// TestIDs_anyCase checks that an id in capitals is the same id in every place that takes
// one, and that responses have it in lower case.
func TestIDs_anyCase(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	c := b.registerParticipants(t)
	done := b.completedTask(t, c.poster, c.worker)
	delivery := b.createDelivery(t, c)
	upper := strings.ToUpper
	for document, ids := range map[string][]any{
		`{ node(id: %q) { id } }`:                                                  {done},
		`{ nodes(ids: [%q, %q]) { id } }`:                                          {done, c.worker.id},
		`{ agent(id: %q) { id } }`:                                                 {c.worker.id},
		`{ task(id: %q) { id result worker { id } } }`:                             {done},
		`{ viewer { wallet { entries(filter: {taskId: %q}) { nodes { id } } } } }`: {done},
	} {
		capitals := make([]any, len(ids))
		for i, id := range ids {
			capitals[i] = upper(fmt.Sprint(id))
		}
		want, got := b.mustQuery(t, c.poster, fmt.Sprintf(document, ids...)), b.query(t, c.poster, fmt.Sprintf(document, capitals...))
		if !reflect.DeepEqual(got.Data, want.Data) || len(got.Errors) > 0 {
			t.Errorf("%s: got %v with %v, want %v", document, got.Data, got.Errors, want.Data)
		}
	}
	entry := b.mustQuery(t, c.poster, `{ viewer { wallet { entries(first: 1) { nodes { id } } } } }`).get(t, "viewer.wallet.entries.nodes.0.id")
	kind, id, _ := strings.Cut(entry, ":")
	b.mustQuery(t, c.poster, fmt.Sprintf(`{ node(id: "%s:%s") { id } }`, kind, upper(id))).assertFields(t, "node.id", entry)

	task := b.postTask(t, c.poster, "budget: 5")
	for _, call := range []struct {
		by       caller
		document string
		path     string
	}{
		{c.worker, `mutation($id: ID!) { acceptTask(input: {taskId: $id}) { task { id } } }`, "acceptTask.task.id"},
		{c.worker, `mutation($id: ID!) { extendTask(input: {taskId: $id}) { task { id } } }`, "extendTask.task.id"},
		{c.worker, `mutation($id: ID!) { releaseTask(input: {taskId: $id}) { task { id } } }`, "releaseTask.task.id"},
		{c.worker, `mutation($id: ID!) { acceptTask(input: {taskId: $id}) { task { id } } }`, "acceptTask.task.id"},
		{c.worker, `mutation($id: ID!) { completeTask(input: {taskId: $id, result: "R"}) { task { id } } }`, "completeTask.task.id"},
		{c.poster, `mutation($id: ID!) { rateTask(input: {taskId: $id, score: 5}) { task { id } } }`, "rateTask.task.id"},
	} {
		body := fmt.Appendf(nil, `{"query":%q,"variables":{"id":%q}}`, call.document, upper(task))
		got := b.send(t, call.by, "POST", "", body, "Content-Type", "application/json")
		if len(got.Errors) > 0 {
			t.Errorf("%s: %v", call.document, got.Errors)
			continue
		}
		got.assertFields(t, call.path, task)
	}
	other := b.postTask(t, c.poster, "budget: 5")
	b.mustQuery(t, c.poster, fmt.Sprintf(`mutation { cancelTask(input: {taskId: %q}) { task { id } } }`, upper(other))).assertFields(t, "cancelTask.task.id", other)
	assertError(t, "a hire of oneself", b.query(t, c.poster, fmt.Sprintf(`mutation { startExecution(input: {agentId: %q, taskDescription: "D", budget: 10}) { task { id } } }`, upper(c.poster.id))), models.Forbidden, "")
	b.mustQuery(t, c.worker, fmt.Sprintf(`mutation { redeliverWebhook(input: {deliveryId: %q}) { delivery { id } } }`, upper(delivery))).assertFields(t, "redeliverWebhook.delivery.id", delivery)
	b.mustQuery(t, c.worker, fmt.Sprintf(`{ viewer { webhook { deliveries(first: 1, after: %q) { pageInfo { hasPreviousPage } } } } }`, upper(delivery))) // a cursor is an id
	b.mustQuery(t, c.worker, fmt.Sprintf(`mutation { redeliverWebhooks(input: {since: "2026-01-01T00:00:00Z", after: %q}) { endCursor } }`, upper(delivery)))
	for door, subscribe := range subscribeFuncs() {
		s := subscribe(b, t, c.poster, fmt.Sprintf(`subscription { taskUpdated(taskId: %q, after: "0") { change task { id } } }`, upper(task)))
		if got := s.nextN(1)[0].get(t, "taskUpdated.task.id"); got != task {
			t.Errorf("%s: got %s, want %s", door, got, task)
		}
	}
}

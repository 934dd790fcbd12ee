package clients_test

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
)

// operationEvent is a line that run.mjs prints about an operation.
type operationEvent struct {
	Operation string
	Data      struct {
		TaskPosted struct{ Task struct{ Title string } }
		Viewer     struct{ Agent struct{ Name string } }
		PostTask   struct{ Task struct{ Status string } }
	}
	Ended    endReason
	Complete bool
}

// endReason is the reason why an operation ended.
type endReason struct{ Code, Message string }

// operation is an operation for a client to run.
type operation struct {
	Query string `json:"query"`
}

func runOperations(t *testing.T, client, url, key string, operations map[string]operation) nodeProcess {
	t.Helper()
	text, err := json.Marshal(operations)
	if err != nil {
		t.Fatal(err)
	}
	return runScript(t, "run.mjs", client, url+"/graphql", key, string(text))
}

// TestSubscribe runs three subscriptions, a query and a mutation at once with each client,
// while tasks are posted.
func TestSubscribe(t *testing.T) {
	t.Parallel()
	for _, name := range clientNames() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testserver.Start(t, "AGENTMARKET_STARTING_CREDITS=1000")
			agent := server.Register("Listener", map[string]any{"capabilities": []string{"own"}})
			poster := server.Register("Poster", nil)
			tasks := func(title string, budget int, capabilities ...string) {
				t.Helper()
				if err := postTask(server, poster.Key, title, budget, capabilities...); err != nil {
					t.Fatal(err)
				}
			}
			tasks("Begin", 50, "own", "asked")
			client := runOperations(t, name, server.URL, agent.Key, map[string]operation{
				"own":   {`subscription { taskPosted(after: "0") { task { title } } }`},
				"asked": {`subscription { taskPosted(after: "0", capabilities: ["Asked", "elsewhere"]) { task { title } } }`},
				"dear":  {`subscription { taskPosted(after: "0", capabilities: [], minBudget: 25) { task { title } } }`},
				"ask":   {`{ viewer { agent { name } } }`},
				"post":  {`mutation { postTask(input: {title: "Mine", description: "D", budget: 50, requiredCapabilities: ["own", "asked"]}) { task { status } } }`},
			})

			received := map[string][]string{}
			heard, completed := 0, 0
			hear := func() {
				t.Helper()
				switch e := nextLine[operationEvent](t, client); {
				case e.Ended != endReason{}:
					t.Fatalf("%s ended: %+v", e.Operation, e.Ended)
				case e.Complete:
					completed++
				default:
					heard++
					received[e.Operation] = append(received[e.Operation], e.Data.TaskPosted.Task.Title+e.Data.Viewer.Agent.Name+e.Data.PostTask.Task.Status)
				}
			}
			for len(received) < 5 || completed < 2 { // later events are live
				hear()
			}
			tasks("Asked", 10, "asked")
			tasks("Own", 10, "own")
			tasks("Both", 25, "asked", "own")
			tasks("Dear", 30, "other")
			tasks("Cheap", 24, "other")
			tasks("End", 50, "own", "asked")
			want := map[string][]string{
				"own":   {"Begin", "Own", "Both", "End"},
				"asked": {"Begin", "Asked", "Both", "End"},
				"dear":  {"Begin", "Mine", "Both", "Dear", "End"},
				"ask":   {"Listener"},
				"post":  {"OPEN"},
			}
			for heard < len(slices.Concat(slices.Collect(maps.Values(want))...)) {
				hear()
			}
			for operation := range want {
				if !slices.Equal(received[operation], want[operation]) {
					t.Errorf("%s received %q, want %q", operation, received[operation], want[operation])
				}
			}
			if completed != 2 {
				t.Errorf("%d operations are complete, want the query and the mutation", completed)
			}
		})
	}
}

// TestSubscribe_errors: a client without access gets the error of its protocol.
func TestSubscribe_errors(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t)
	agent := server.Register("Agent", nil)
	const wallet = `subscription { walletChanged { cursor } }`
	tests := []struct {
		name, key, query string
		want             map[string]endReason
	}{
		{"a key that nobody has", "nobody's", wallet, map[string]endReason{
			"graphql-ws":                 {"4403", "Forbidden"},
			"subscriptions-transport-ws": {"", "unknown API key"},
			"graphql-sse":                {"401", "Server responded with 401: Unauthorized"},
		}},
		{"no key where one is needed", "", wallet, map[string]endReason{
			"graphql-ws":                 {"UNAUTHENTICATED", "missing API key: send it in the X-API-Key header"},
			"subscriptions-transport-ws": {"UNAUTHENTICATED", "missing API key: send it in the X-API-Key header"},
			"graphql-sse":                {"UNAUTHENTICATED", "missing API key: send it in the X-API-Key header"},
		}},
		{"a cursor that is none", agent.Key, `subscription { taskPosted(after: "x") { cursor } }`, map[string]endReason{
			"graphql-ws":                 {"INVALID_INPUT", "after must be the cursor of an event"},
			"subscriptions-transport-ws": {"INVALID_INPUT", "after must be the cursor of an event"},
			"graphql-sse":                {"INVALID_INPUT", "after must be the cursor of an event"},
		}},
		{"a field that is none", agent.Key, `{ nothing }`, map[string]endReason{
			"graphql-ws":                 {"INVALID_INPUT", `Cannot query field "nothing" on type "Query".`},
			"subscriptions-transport-ws": {"INVALID_INPUT", `Cannot query field "nothing" on type "Query".`},
			"graphql-sse":                {"400", "Server responded with 400: Bad Request"},
		}},
	}
	for _, test := range tests {
		for _, name := range clientNames() {
			t.Run(test.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				client := runOperations(t, name, server.URL, test.key, map[string]operation{"it": {test.query}})
				if got := nextLine[operationEvent](t, client); got.Ended != test.want[name] {
					t.Errorf("ended with %+v, want %+v", got.Ended, test.want[name])
				}
			})
		}
	}
}

// TestRevokedKey: operations end as soon as their key is replaced.
func TestRevokedKey(t *testing.T) {
	t.Parallel()
	server := testserver.Start(t)
	want := map[string]endReason{
		"graphql-ws":                 {"4401", "Unauthorized: the API key was revoked"},
		"subscriptions-transport-ws": {"", "disconnected"},
		"graphql-sse":                {"UNAUTHENTICATED", "Unauthorized: the API key was revoked"},
	}
	for _, name := range clientNames() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			agent := server.Register("Agent", nil)
			client := runOperations(t, name, server.URL, agent.Key, map[string]operation{
				"wallet": {`subscription { walletChanged(after: "0") { cursor } }`},
			})
			if begun := nextLine[operationEvent](t, client); begun.Ended != (endReason{}) { // the starting credits
				t.Fatalf("rejected: %+v", begun.Ended)
			}
			var data struct{}
			if err := server.Query(agent.Key, `mutation { rotateApiKey { apiKey } }`, nil, &data); err != nil {
				t.Fatal(err)
			}
			if got := nextLine[operationEvent](t, client); got.Ended != want[name] {
				t.Errorf("ended with %+v, want %+v", got.Ended, want[name])
			}
		})
	}
}

package graph

import (
	"fmt"
	"net/http"
	"testing"

	"agentmarket.space/server/models"
)

// TestVariables checks the JSON types of variables, alone, in a list and inside an input.
func TestVariables(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	agent := b.registerAgent(t, "")
	const list, post = `query($v: %s) { %s { totalCount } }`, `mutation($v: PostTaskInput!) { postTask(input: $v) { task { id } } }`
	for _, row := range []struct {
		document, value string
		field           string // at fault; empty when it is taken
	}{
		{fmt.Sprintf(list, "Int", "tasks(first: $v)"), `5`, ""},
		{fmt.Sprintf(list, "Int", "tasks(first: $v)"), `"5"`, "v"},
		{fmt.Sprintf(list, "Int = 5", "tasks(first: $v)"), `null`, ""},
		{fmt.Sprintf(list, "String", "tasks(filter: {search: $v})"), `"5"`, ""},
		{fmt.Sprintf(list, "String", "tasks(filter: {search: $v})"), `5`, "v"},
		{fmt.Sprintf(list, "[TaskStatus!]", "tasks(filter: {status: $v})"), `["OPEN"]`, ""},
		{fmt.Sprintf(list, "[TaskStatus!]", "tasks(filter: {status: $v})"), `"OPEN"`, ""}, // one stands for a list of it
		{fmt.Sprintf(list, "TaskFilter", "tasks(filter: $v)"), `{"capability": null, "minBudget": 2}`, ""},
		{fmt.Sprintf(list, "TaskFilter", "tasks(filter: $v)"), `{"minBudget": "2"}`, "minBudget"},
		{fmt.Sprintf(list, "TaskFilter", "tasks(filter: $v)"), `{"status": ["open"]}`, "status"},
		{`query($v: [ID!]!) { nodes(ids: $v) { id } }`, `["a", 7]`, ""}, // an ID may be a number
		{post, `{"title": "T", "description": "D", "budget": 5, "requiredCapabilities": "x", "leaseMinutes": 5}`, ""},
		{post, `{"title": 7, "description": "D", "budget": 5}`, "title"},
		{post, `{"title": "T", "description": "D", "budget": 5, "requiredCapabilities": ["x", 7]}`, "requiredCapabilities"},
		{post, `{"title": "T", "description": "D", "budget": 5, "leaseMinutes": "5"}`, "leaseMinutes"},
		{`mutation($v: URL!) { setWebhook(input: {url: $v}) { secret } }`, `7`, "v"},
	} {
		t.Run(row.document+row.value, func(t *testing.T) {
			t.Parallel()
			got := b.send(t, agent, http.MethodPost, "", fmt.Appendf(nil, `{"query":%q,"variables":{"v":%s}}`, row.document, row.value), "Content-Type", "application/json")
			switch {
			case row.field != "":
				assertError(t, "it", got, models.InvalidInput, row.field)
			case len(got.Errors) > 0:
				t.Errorf("refused: %v", got.Errors)
			}
		})
	}
}

package graph

import (
	"fmt"
	"net/http"
	"strings"
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
		{fmt.Sprintf(list, "Int", "tasks(first: $v)"), `5.0`, ""},
		{fmt.Sprintf(list, "Int", "tasks(first: $v)"), `50e-1`, ""},
		{fmt.Sprintf(list, "Credits", "tasks(filter: {minBudget: $v})"), `2e0`, ""},
		{fmt.Sprintf(list, "TaskFilter", "tasks(filter: $v)"), `{"minBudget": 2.0}`, ""},
		{post, `{"title": "T", "description": "D", "budget": 5.0, "leaseMinutes": 50e-1, "openForMinutes": 5E+0}`, ""},
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

// TestVariables_wrongNumbers checks that an error shows a wrong number as it was sent.
func TestVariables_wrongNumbers(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	agent := b.registerAgent(t, "")
	const task = `mutation($v: PostTaskInput!) { postTask(input: $v) { task { id } } }`
	for value, shown := range map[string]string{
		`2.5`: `must be a whole number, not 2.5`, `25e-1`: `must be a whole number, not 25e-1`, `"2"`: `must be a whole number, not "2"`, `true`: `must be a whole number, not true`,
		`1e400`: `must be a whole number of at most 64 bits, not 1e400`, `99999999999999999999`: `must be a whole number of at most 64 bits, not 99999999999999999999`,
		strings.Repeat("9", 5000): `must be a whole number of at most 64 bits, not ` + strings.Repeat("9", 40) + "...",
	} {
		for _, row := range []struct{ document, variable, field string }{
			{`query($v: Int) { tasks(first: $v) { totalCount } }`, `%s`, "v"},
			{`query($v: Credits) { tasks(filter: {minBudget: $v}) { totalCount } }`, `%s`, "v"},
			{`query($v: TaskFilter) { tasks(filter: $v) { totalCount } }`, `{"minBudget": %s}`, "minBudget"},
			{task, `{"title": "T", "description": "D", "budget": %s}`, "budget"},
			{task, `{"title": "T", "description": "D", "budget": 5, "leaseMinutes": %s}`, "leaseMinutes"},
		} {
			body := fmt.Appendf(nil, `{"query":%q,"variables":{"v":`+row.variable+`}}`, row.document, value)
			got := b.send(t, agent, http.MethodPost, "", body, "Content-Type", "application/json")
			what := fmt.Sprintf("%.30s as %s of %s", value, row.field, row.document)
			assertError(t, what, got, models.InvalidInput, row.field)
			if want := row.field + " " + shown; len(got.Errors) == 1 && got.Errors[0].Message != want {
				t.Errorf("%s: got %q, want %q", what, got.Errors[0].Message, want)
			}
		}
	}
	for literal, want := range map[string]string{ // a number with a point is a Float in a document
		`2.5`: "budget must be a whole number without a decimal point or an exponent", `2.0`: "budget must be a whole number without a decimal point or an exponent",
		`"2"`: `budget must be a whole number, not "2"`,
	} {
		got := b.query(t, agent, `mutation { postTask(input: {title: "T", description: "D", budget: `+literal+`}) { task { id } } }`)
		assertError(t, literal, got, models.InvalidInput, "budget")
		if len(got.Errors) == 1 && got.Errors[0].Message != want {
			t.Errorf("%s: got %q, want %q", literal, got.Errors[0].Message, want)
		}
	}
}

package market_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestSearch: a search finds the tasks and agents that have all of its words, whatever
// their case and composition, on every engine.
func TestSearch(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	title, description := "ÜBERSETZEN ПЕРЕВОД PLAIN", "Cafe\u0301 Straße 100%_done, 翻译."
	agent, err := b.Register(t.Context(), market.RegisterAgentInput{Name: title, Description: &description})
	testutil.Must(t, err)
	_, err = b.Post(t.Context(), auth.Actor{AgentID: agent.Agent.ID}, market.PostTaskInput{Title: title, Description: description, Budget: 2})
	testutil.Must(t, err)
	for _, row := range []struct {
		search string
		found  bool
	}{
		{"plain", true},
		{"übersetzen", true},
		{"U\u0308BERSETZEN", true},
		{"перевод", true},
		{"Перевод Plain übersetzen", true},
		{"café", true},
		{"CAFE\u0301", true},
		{"STRASSE", true},
		{"strasse straße", true},
		{"üb", true},        // the last word is a prefix
		{"plain üb", true},  // of any word
		{"üb plain", false}, // the others are not
		{"bersetzen", false},
		{"cafe", false}, // another word than café
		{"译", true},
		{"翻译", true},
		{"100% done", true},
		{"  ", true}, // no condition
		{"%", false},
		{"_", false},
		{"plain nothing", false},
		{`plain"`, true},
		{`"`, false},
	} {
		tasks, err := b.ListTasks(t.Context(), market.TaskQuery{Search: row.search}, market.Page{First: 20})
		testutil.Must(t, err)
		agents, err := b.ListAgents(t.Context(), market.AgentQuery{Search: row.search}, market.Page{First: 20})
		testutil.Must(t, err)
		if len(tasks.Items) == 1 != row.found || len(agents.Items) == 1 != row.found {
			t.Errorf("%+q finds %d tasks and %d agents, want %t", row.search, len(tasks.Items), len(agents.Items), row.found)
		}
	}
	_, err = b.ListTasks(t.Context(), market.TaskQuery{Search: strings.Repeat("a ", 20) + "b c d e f g h i j k l m n o p q r s t u"}, market.Page{First: 20})
	wantCode(t, err, models.InvalidInput)
	b.VerifyLedger()
}

// TestSearch_changedAgent: an agent is found by its new words only.
func TestSearch_changedAgent(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	agent := b.NewAgent()
	find := func(search string) bool {
		agents, err := b.ListAgents(t.Context(), market.AgentQuery{Search: search}, market.Page{First: 20})
		testutil.Must(t, err)
		return len(agents.Items) == 1
	}
	for _, changes := range []market.AgentChanges{
		{Name: new("First name")}, {Name: new("Second name"), Description: new("Likes zebras.")}, {Name: new("Second, NAME!")}, {PricePerTask: new(models.Credits(7))},
	} {
		_, err := b.UpdateAgent(t.Context(), agent, changes)
		testutil.Must(t, err)
		if changes.Name != nil && !find(*changes.Name) {
			t.Errorf("not found by %q", *changes.Name)
		}
	}
	if find("first") || !find("zebra") || !find("second") {
		t.Error("found by the words of an old name, or not by those of the current one")
	}
	b.VerifyLedger()
}

// TestCapabilities_folding: capabilities that differ in case or composition are equal.
func TestCapabilities_folding(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	spellings := []string{"CAFÉ", "CAFE\u0301", "café", " cafe\u0301 "}
	agent := b.NewAgent(spellings...)
	task := b.NewTask(agent, 2, spellings...)
	if want := []string{"caf\u00e9"}; !slices.Equal(task.Capabilities, want) {
		t.Errorf("the task requires %q, want %q", task.Capabilities, want)
	}
	for _, spelling := range spellings {
		tasks, err := b.ListTasks(t.Context(), market.TaskQuery{Capability: spelling}, market.Page{First: 20})
		testutil.Must(t, err)
		agents, err := b.ListAgents(t.Context(), market.AgentQuery{Capability: spelling}, market.Page{First: 20})
		testutil.Must(t, err)
		if len(tasks.Items) != 1 || len(agents.Items) != 1 {
			t.Errorf("%+q finds %d tasks and %d agents, want one each", spelling, len(tasks.Items), len(agents.Items))
		}
	}
	b.VerifyLedger()
}

// listStrategies are bounds with which the lists of a small market take every way to their
// rows: all by id, all by short walks, and a mixture.
func listStrategies() map[string][3]int {
	return map[string][3]int{"by id": {1000, 1, 1000}, "walks of 4 rows": {2, 4, 5}, "long walks": {0, 1000, 1000}}
}

// TestLists: every combination of filters and orders returns exactly the rows that match,
// in order, page by page, however the rows are found; and an exact count is right.
func TestLists(t *testing.T) { //nolint:tparallel // the bounds are the market's
	t.Parallel()
	b := markettest.New(t)
	tasks, agents := fillForLists(t, b)
	for name, bounds := range listStrategies() {
		t.Run(name, func(t *testing.T) {
			b.SetListBounds(bounds[0], bounds[1], bounds[2])
			for _, q := range allTaskQueries() {
				want := matchTasks(b, tasks, q)
				got := readAll(t, func(page market.Page) (market.ListResult[models.Task], error) {
					return b.ListTasks(t.Context(), q, page)
				}, q.Cursor)
				compareIDs(t, fmt.Sprintf("%+v, minimum %s", q, credits(q.MinBudget)), ids(got, func(x models.Task) string { return x.ID }), want)
				checkCount(t, b.CountTasks, q, len(want), bounds[2])
			}
			for _, q := range allAgentQueries() {
				want := matchAgents(agents, q)
				got := readAll(t, func(page market.Page) (market.ListResult[models.Agent], error) {
					return b.ListAgents(t.Context(), q, page)
				}, q.Cursor)
				compareIDs(t, fmt.Sprintf("%+v, maximum %s", q, credits(q.MaxPrice)), ids(got, func(x models.Agent) string { return x.ID }), want)
				checkCount(t, b.CountAgents, q, len(want), bounds[2])
			}
		})
	}
}

func credits(c *models.Credits) string {
	if c == nil {
		return "none"
	}
	return fmt.Sprint(*c)
}

// fillForLists creates tasks and agents with all combinations of what filters ask for.
func fillForLists(t *testing.T, b *markettest.Bundle) (tasks []models.Task, agents []models.Agent) {
	t.Helper()
	b.Settings.StartingCredits = 10_000
	for i := range 24 {
		in := market.RegisterAgentInput{Name: "Agent " + []string{"zebra", "zebu", "horse"}[i%3], PricePerTask: models.Credits(5 + i%4)}
		if i%2 == 0 {
			in.Capabilities = []string{"common"}
		}
		switch i % 5 {
		case 0:
			in.EndpointURL = new("https://agent.example.com/run")
		case 1:
			in.SystemPrompt = new("You are an agent.")
		}
		registered, err := b.Register(t.Context(), in)
		testutil.Must(t, err)
		agents = append(agents, registered.Agent)
	}
	poster, worker := auth.Actor{AgentID: agents[0].ID}, auth.Actor{AgentID: agents[1].ID}
	for i := range 36 {
		in := market.PostTaskInput{Title: []string{"Draw a zebra", "Draw a zebu", "Ride a horse"}[i%3], Description: "Now.", Budget: models.Credits(10 + i%5)}
		if i%2 == 0 {
			in.RequiredCapabilities = []string{"common"}
		}
		if i%6 == 5 {
			in.OpenForMinutes = new(1) // overdue, not swept
		}
		posted, err := b.Post(t.Context(), poster, in)
		testutil.Must(t, err)
		switch i % 4 {
		case 1:
			mustAccept(t, b, worker, posted.Task)
		case 2:
			mustAccept(t, b, worker, posted.Task)
			_, err = b.Complete(t.Context(), worker, posted.Task.ID, "done")
			testutil.Must(t, err)
		}
		tasks = append(tasks, posted.Task)
	}
	b.Clock.Advance(2 * time.Minute)
	for i := range tasks {
		task, err := b.Task(t.Context(), "", tasks[i].ID)
		testutil.Must(t, err)
		tasks[i] = *task
	}
	for i := range agents {
		agent, err := b.Agent(t.Context(), agents[i].ID)
		testutil.Must(t, err)
		agents[i] = *agent
	}
	return tasks, agents
}

// allTaskQueries returns every combination of filters and orders of tasks.
func allTaskQueries() (all []market.TaskQuery) {
	for _, status := range [][]models.Status{nil, {models.Open}, {models.Open, models.Completed, models.Expired}, {models.Failed}} {
		for _, capability := range []string{"", "common"} {
			for _, search := range []string{"", "zeb", "draw zebra", "unknown"} {
				for _, minBudget := range []*models.Credits{nil, new(models.Credits(13))} {
					for _, order := range []market.Order{{}, {Ascending: true}, {Column: market.ByBudget}, {Column: market.ByBudget, Ascending: true}} {
						all = append(all, market.TaskQuery{Status: status, Capability: capability, Search: search, MinBudget: minBudget, Order: order})
					}
				}
			}
		}
	}
	return all
}

// allAgentQueries returns every combination of filters and orders of agents.
func allAgentQueries() (all []market.AgentQuery) {
	for _, capability := range []string{"", "common"} {
		for _, search := range []string{"", "zeb", "agent zebra", "unknown"} {
			for _, maxPrice := range []*models.Credits{nil, new(models.Credits(6))} {
				for _, modes := range [][]models.ExecutionMode{nil, {models.ModeEndpoint}, {models.ModePrompt, models.ModeNone}} {
					for _, column := range []string{"", market.ByReputation, market.ByPrice} {
						for _, ascending := range []bool{false, true} {
							all = append(all, market.AgentQuery{Capability: capability, Search: search, MaxPrice: maxPrice, Modes: modes, Order: market.Order{Column: column, Ascending: ascending}})
						}
					}
				}
			}
		}
	}
	return all
}

// matchTasks returns the ids of the tasks that match q, in order, without a database.
func matchTasks(b *markettest.Bundle, tasks []models.Task, q market.TaskQuery) []string {
	matching := slices.DeleteFunc(slices.Clone(tasks), func(task models.Task) bool {
		return len(q.Status) > 0 && !slices.Contains(q.Status, task.AsOf(models.NewTime(b.Clock.Now())).Status) ||
			q.Capability != "" && !slices.Contains(task.Capabilities, q.Capability) ||
			q.MinBudget != nil && task.Budget < *q.MinBudget || !matchesSearch(task.Title, q.Search)
	})
	slices.SortFunc(matching, func(a, b models.Task) int {
		byBudget := 0
		if q.Order.Column == market.ByBudget {
			byBudget = cmp.Compare(a.Budget, b.Budget)
		}
		return direction(q.Order) * cmp.Or(byBudget, cmp.Compare(a.ID, b.ID))
	})
	return ids(matching, func(x models.Task) string { return x.ID })
}

// matchAgents returns the ids of the agents that match q, in order, without a database.
func matchAgents(agents []models.Agent, q market.AgentQuery) []string {
	matching := slices.DeleteFunc(slices.Clone(agents), func(agent models.Agent) bool {
		return q.Capability != "" && !slices.Contains(agent.Capabilities, q.Capability) ||
			q.MaxPrice != nil && agent.PricePerTask > *q.MaxPrice || len(q.Modes) > 0 && !slices.Contains(q.Modes, agent.ExecutionMode()) ||
			!matchesSearch(agent.Name, q.Search)
	})
	slices.SortFunc(matching, func(a, b models.Agent) int {
		byColumn := 0
		if q.Order.Column == market.ByPrice {
			byColumn = cmp.Compare(a.PricePerTask, b.PricePerTask)
		}
		return direction(q.Order) * cmp.Or(byColumn, cmp.Compare(a.ID, b.ID))
	})
	return ids(matching, func(x models.Agent) string { return x.ID })
}

// matchesSearch reports whether a text matches a search of lower case words.
func matchesSearch(text, search string) bool {
	terms := strings.Fields(search)
	for i, term := range terms {
		if !slices.ContainsFunc(strings.Fields(strings.ToLower(text)), func(word string) bool {
			return word == term || i == len(terms)-1 && strings.HasPrefix(word, term)
		}) {
			return false
		}
	}
	return true
}

func direction(o market.Order) int {
	if o.Ascending {
		return 1
	}
	return -1
}

func ids[T any](items []T, id func(T) string) []string {
	all := []string{}
	for _, item := range items {
		all = append(all, id(item))
	}
	return all
}

// readAll reads a list page by page, as clients do.
func readAll[T any](t *testing.T, list func(market.Page) (market.ListResult[T], error), cursor func(*T) string) (all []T) {
	t.Helper()
	page := market.Page{First: 5}
	for range 100 {
		result, err := list(page)
		testutil.Must(t, err)
		if len(result.Items) > page.First {
			t.Fatalf("a page of %d has %d items", page.First, len(result.Items))
		}
		all = append(all, result.Items...)
		switch {
		case !result.HasMore:
			return all
		case result.End != "":
			page.After = result.End
		default:
			page.After = cursor(&result.Items[len(result.Items)-1])
		}
	}
	t.Fatal("the list does not end")
	return nil
}

func compareIDs(t *testing.T, query string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %d rows %q, want %d: %q", query, len(got), got, len(want), want)
	}
}

// checkCount checks that an exact count is right, and that another one is at most that.
func checkCount[Q any](t *testing.T, count func(context.Context, Q) (market.Count, error), q Q, want, limit int) {
	t.Helper()
	got, err := count(t.Context(), q)
	testutil.Must(t, err)
	if got.Exact && got.N != want || !got.Exact && got.N > want || got.N > limit {
		t.Errorf("%+v: counted %+v, want %d and at most %d", q, got, want, limit)
	}
}

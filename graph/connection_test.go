package graph

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// list is a list field of the schema, with its caller and arguments.
type list struct {
	caller    caller
	parent    string // its parents, for example viewer { wallet {
	field     string // its name
	arguments string // further arguments
}

// queryPage queries one page of a list.
func (b *bundle) queryPage(t *testing.T, l list, first int, after string) gqlResponse {
	t.Helper()
	cursor := "null"
	if after != "" {
		cursor = fmt.Sprintf("%q", after)
	}
	return b.query(t, l.caller, fmt.Sprintf(`{ %s %s(first: %d, after: %s %s) { nodes { id } edges { cursor node { id } }
		pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } %s }`,
		l.parent, l.field, first, cursor, l.arguments, strings.Repeat("}", strings.Count(l.parent, "{"))))
}

// readAllPages reads all pages of a list and returns the ids. It calls between after each
// page.
func (b *bundle) readAllPages(t *testing.T, l list, first int, between func()) []string {
	t.Helper()
	path := strings.NewReplacer(" { ", ".", " {", ".").Replace(l.parent) + l.field
	var ids []string
	for after, more := "", true; more; {
		got := b.queryPage(t, l, first, after)
		if len(got.Errors) > 0 {
			t.Fatalf("%s after %q: %v", l.field, after, got.Errors)
		}
		n := 0
		for got.get(t, path+".nodes") != "[]" && n < strings.Count(got.get(t, path+".nodes"), `"id"`) {
			at := fmt.Sprintf(".nodes.%d.id", n)
			id := got.get(t, path+at)
			got.assertFields(t, fmt.Sprintf("%s.edges.%d.node.id", path, n), id)
			ids = append(ids, id)
			n++
		}
		more = got.get(t, path+".pageInfo.hasNextPage") == "true"
		if n > first || more && n < first {
			t.Fatalf("a page of %d has %d items, next page: %t", first, n, more)
		}
		got.assertFields(t, path+".pageInfo.hasPreviousPage", strconv.FormatBool(after != ""))
		if n > 0 {
			got.assertFields(t, path+".pageInfo.startCursor", got.get(t, path+".edges.0.cursor"),
				path+".pageInfo.endCursor", got.get(t, fmt.Sprintf("%s.edges.%d.cursor", path, n-1)))
		}
		after = got.get(t, path+".pageInfo.endCursor")
		between()
	}
	return ids
}

// TestConnections_pagination reads every list page by page, in each order, while items are
// added. The initial items must appear once, in order.
func TestConnections_pagination(t *testing.T) { //nolint:tparallel // the lists share a market
	t.Parallel()
	b := newBundle(t)
	b.Settings.StartingCredits = 1_000_000
	poster, worker := b.registerAgent(t, ""), b.registerAgent(t, `webhookUrl: "https://agent.example.com/hook"`)
	add := func() {
		b.completedTask(t, poster, worker)
		b.postTask(t, poster, fmt.Sprintf("budget: %d", 2+b.Log.Head()%5))
		rated := b.registerAgent(t, "pricePerTask: 3")
		testutil.Must(t, b.DB.Write(t.Context(), func(tx *database.Tx) error { // 11/3 is not a round number
			return tx.Model(&models.Agent{ID: rated.id}).Updates(map[string]any{"rating_sum": 11, "rating_count": 3}).Error
		}))
		b.createDelivery(t, participants{poster: poster, worker: worker})
	}
	for range 4 {
		add()
	}
	lists := map[string]list{
		"tasks, newest first":   {field: "tasks"},
		"tasks, oldest first":   {field: "tasks", arguments: "orderBy: {field: CREATED_AT, direction: ASC}"},
		"tasks, best paid":      {field: "tasks", arguments: "orderBy: {field: BUDGET}"},
		"tasks, worst paid":     {field: "tasks", arguments: "orderBy: {field: BUDGET, direction: ASC}"},
		"open tasks":            {field: "tasks", arguments: "filter: {status: [OPEN]}"},
		"agents, newest first":  {field: "agents"},
		"agents, oldest first":  {field: "agents", arguments: "orderBy: {field: CREATED_AT, direction: ASC}"},
		"agents, best first":    {field: "agents", arguments: "orderBy: {field: REPUTATION}"},
		"agents, worst first":   {field: "agents", arguments: "orderBy: {field: REPUTATION, direction: ASC}"},
		"agents, dearest first": {field: "agents", arguments: "orderBy: {field: PRICE}"},
		"agents, cheap first":   {field: "agents", arguments: "orderBy: {field: PRICE, direction: ASC}"},
		"posted tasks":          {caller: poster, parent: "viewer {", field: "postedTasks"},
		"worked tasks":          {caller: worker, parent: "viewer {", field: "workedTasks"},
		"entries":               {caller: poster, parent: "viewer { wallet {", field: "entries"},
		"deliveries":            {caller: worker, parent: "viewer { webhook {", field: "deliveries"},
	}
	for name, l := range lists {
		t.Run(name, func(t *testing.T) {
			initial := b.readAllPages(t, l, 100, func() {})
			if len(initial) < 4 {
				t.Fatalf("the list has %d items", len(initial))
			}
			added := 0
			got := b.readAllPages(t, l, 3, func() {
				if added++; added <= 2 {
					add()
				}
			})
			seen := map[string]int{}
			for _, id := range got {
				seen[id]++
				if seen[id] > 1 {
					t.Errorf("%s is repeated", id)
				}
			}
			common := slices.DeleteFunc(slices.Clone(got), func(id string) bool { return !slices.Contains(initial, id) })
			if !slices.Equal(common, initial) {
				t.Errorf("got\n%v\nwant\n%v", common, initial)
			}
		})
	}
}

// TestConnections_invalidCursors checks that invalid cursors are rejected.
func TestConnections_invalidCursors(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	agent := b.registerAgent(t, `webhookUrl: "https://agent.example.com/hook"`)
	b.postTask(t, agent, "budget: 5")
	b.postTask(t, agent, "budget: 5")
	byAge := b.queryPage(t, list{field: "tasks"}, 1, "").get(t, "tasks.pageInfo.endCursor")
	byPay := b.queryPage(t, list{field: "tasks", arguments: "orderBy: {field: BUDGET}"}, 1, "").get(t, "tasks.pageInfo.endCursor")
	encode := base64.RawURLEncoding.EncodeToString
	for name, row := range map[string]struct {
		list
		cursors []string
	}{
		"tasks":        {list{field: "tasks"}, []string{"nonsense", "!", " ", encode([]byte("no bar")), encode([]byte("|\x00")), encode([]byte("|7")), encode([]byte("|" + strings.ToUpper(agent.id))), byPay, "7", byAge + `\n`}},
		"tasks by pay": {list{field: "tasks", arguments: "orderBy: {field: BUDGET}"}, []string{"nonsense", byAge, encode([]byte("much|" + agent.id))}},
		"agents":       {list{field: "agents"}, []string{"nonsense", "AAAA"}},
		"posted tasks": {list{caller: agent, parent: "viewer {", field: "postedTasks"}, []string{"nonsense"}},
		"worked tasks": {list{caller: agent, parent: "viewer {", field: "workedTasks"}, []string{"nonsense"}},
		"entries":      {list{caller: agent, parent: "viewer { wallet {", field: "entries"}, []string{"nonsense", byAge, "1.5", "99999999999999999999", "00", "+1", "01"}},
		"deliveries":   {list{caller: agent, parent: "viewer { webhook {", field: "deliveries"}, []string{"nonsense", byAge, "7", "zzzz", "urn:uuid:" + agent.id, "{" + agent.id + "}", strings.ReplaceAll(agent.id, "-", "")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, cursor := range row.cursors {
				got := b.queryPage(t, row.list, 1, cursor)
				if len(got.Errors) != 1 || got.code() != "INVALID_INPUT" || got.Errors[0].Extensions["field"] != "after" {
					t.Errorf("%q: got %v with %v", cursor, got.Data, got.Errors)
				}
			}
		})
	}
}

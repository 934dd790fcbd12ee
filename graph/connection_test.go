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

// list is a list of the schema: where it is, what it is asked with, and whose.
type list struct {
	caller    caller
	parent    string // what leads to it, for example viewer { wallet
	field     string // its name
	arguments string // further arguments
}

// queryPage asks for one page. It returns the ids and the end cursor.
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

// readAllPages reads a list from end to end and returns its ids; between is called after
// each page.
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
			t.Fatalf("a page of %d has %d items, more to come: %t", first, n, more)
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

// TestConnections_pagination reads every list page by page, in each order it has, while items are
// added: what was there at the start comes once, in order.
func TestConnections_pagination(t *testing.T) { //nolint:tparallel // what one list adds, the next one finds
	t.Parallel()
	b := newBundle(t)
	b.Settings.StartingCredits = 1_000_000
	poster, worker := b.registerAgent(t, ""), b.registerAgent(t, `webhookUrl: "https://agent.example.com/hook"`)
	add := func() {
		b.completedTask(t, poster, worker)
		b.postTask(t, poster, fmt.Sprintf("budget: %d", 2+b.Log.Head()%5))
		rated := b.registerAgent(t, "pricePerTask: 3")
		testutil.Must(t, b.DB.Write(t.Context(), func(tx *database.Tx) error { // two thirds are no round number
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
			whole := b.readAllPages(t, l, 100, func() {})
			if len(whole) < 4 {
				t.Fatalf("the list has %d items", len(whole))
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
					t.Errorf("%s came twice", id)
				}
			}
			there := slices.DeleteFunc(slices.Clone(got), func(id string) bool { return !slices.Contains(whole, id) })
			if !slices.Equal(there, whole) {
				t.Errorf("came\n%v\nwant\n%v", there, whole)
			}
		})
	}
}

// TestConnections_invalidCursors: what is no cursor of the list is refused.
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
		"tasks":        {list{field: "tasks"}, []string{"nonsense", "!", " ", encode([]byte("no bar")), byPay, "7", byAge + `\n`}},
		"tasks by pay": {list{field: "tasks", arguments: "orderBy: {field: BUDGET}"}, []string{"nonsense", byAge, encode([]byte("much|" + agent.id))}},
		"agents":       {list{field: "agents"}, []string{"nonsense", "AAAA"}},
		"posted tasks": {list{caller: agent, parent: "viewer {", field: "postedTasks"}, []string{"nonsense"}},
		"worked tasks": {list{caller: agent, parent: "viewer {", field: "workedTasks"}, []string{"nonsense"}},
		"entries":      {list{caller: agent, parent: "viewer { wallet {", field: "entries"}, []string{"nonsense", byAge, "1.5", "99999999999999999999", "00", "+1", "01"}},
		"deliveries":   {list{caller: agent, parent: "viewer { webhook {", field: "deliveries"}, []string{"nonsense", byAge, "7", "zzzz", "urn:uuid:" + agent.id, "{" + agent.id + "}", strings.ReplaceAll(agent.id, "-", ""), strings.ToUpper(agent.id)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, cursor := range row.cursors {
				got := b.queryPage(t, row.list, 1, cursor)
				if len(got.Errors) != 1 || got.code() != "INVALID_INPUT" || got.Errors[0].Extensions["field"] != "after" {
					t.Errorf("%q: answered %v with %v", cursor, got.Data, got.Errors)
				}
			}
		})
	}
}

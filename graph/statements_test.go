package graph

import (
	"fmt"
	"strings"
	"testing"

	"gorm.io/gorm"
)

// count has what is read from the store counted, but for the log, which is read
// when it pleases.
func (b *bundle) count(t *testing.T) {
	t.Helper()
	count := func(db *gorm.DB) {
		if sql := db.Statement.SQL.String(); !strings.Contains(sql, "FROM events") && !strings.Contains(sql, "FROM `events`") {
			b.reads.Add(1)
		}
	}
	callbacks := b.DB.Read(t.Context()).Callback()
	must(t, callbacks.Query().After("gorm:query").Register("count", count))
	must(t, callbacks.Row().After("gorm:row").Register("count", count))
	must(t, callbacks.Raw().After("gorm:raw").Register("count", count))
}

// TestStatements: a list of twenty takes as many statements as a list of two,
// whatever is asked of its items.
func TestStatements(t *testing.T) { //nolint:tparallel // one count at a time
	t.Parallel()
	b := open(t)
	b.Settings.StartingCredits = 10_000
	worker := b.register(t, `webhookUrl: "https://agent.example.com/hook"`)
	poster := b.register(t, "")
	for range 20 { // a poster and a worker of its own each, so that nothing is found twice
		c := cast{poster: b.register(t, ""), worker: b.register(t, "")}
		id := b.completed(t, c.poster, c.worker)
		b.ok(t, c.poster, fmt.Sprintf(`mutation { rateTask(input: {taskId: %q, score: 5}) { task { id } } }`, id))
		b.completed(t, poster, b.register(t, ""))
		b.delivery(t, cast{poster: poster, worker: worker})
	}
	for _, c := range []caller{poster, worker} {
		b.ok(t, c, `{ __typename }`) // their keys are known from here on
	}
	n := &b.reads
	const task = `title result rating { score } poster { name reputationScore } worker { name completedTaskCount }`
	for name, row := range map[string]struct {
		caller   caller
		document string // with the number of items as %d
	}{
		"tasks as nodes": {caller{}, `{ tasks(first: %d, filter: {status: [COMPLETED]}) { totalCount nodes { ` + task + ` } } }`},
		"tasks as edges": {caller{}, `{ tasks(first: %d, filter: {status: [COMPLETED]}) { totalCount edges { node { ` + task + ` } } } }`},
		"agents":         {caller{}, `{ agents(first: %d) { totalCount nodes { name reputationScore } edges { node { capabilities } } } }`},
		"posted tasks":   {poster, `{ viewer { postedTasks(first: %d) { nodes { ` + task + ` } } } }`},
		"entries":        {poster, `{ viewer { wallet { entries(first: %d, filter: {kind: [ESCROW_HOLD]}) { nodes { task { ` + task + ` } } } } } }`},
		"entry edges":    {poster, `{ viewer { wallet { entries(first: %d, filter: {kind: [ESCROW_HOLD]}) { edges { node { task { ` + task + ` } } } } } } }`},
		"deliveries":     {worker, `{ viewer { webhook { deliveries(first: %d) { nodes { task { ` + task + ` } } } } } }`},
		"bodies":         {worker, `{ viewer { webhook { deliveries(first: %d) { nodes { requestBody } } } } }`},
		"attempts":       {worker, `{ viewer { webhook { deliveries(first: %d) { nodes { attempts { number } } } } } }`},
	} {
		t.Run(name, func(t *testing.T) {
			count := func(items int) int64 {
				before := n.Load()
				b.ok(t, row.caller, fmt.Sprintf(row.document, items))
				return n.Load() - before
			}
			two, twenty := count(2), count(20)
			if two == 0 || two != twenty {
				t.Errorf("2 items take %d statements, 20 take %d", two, twenty)
			}
		})
	}
}

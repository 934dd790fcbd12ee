package graph

import (
	"fmt"
	"strings"
	"testing"

	"gorm.io/gorm"

	"agentmarket.space/server/internal/test/testutil"
)

// countReads counts read statements, except those of the event log, which reads in the
// background.
func (b *bundle) countReads(t *testing.T) {
	t.Helper()
	count := func(db *gorm.DB) {
		if sql := db.Statement.SQL.String(); !strings.Contains(sql, "FROM events") && !strings.Contains(sql, "FROM `events`") {
			b.readCount.Add(1)
		}
	}
	callbacks := b.DB.Read(t.Context()).Callback()
	testutil.Must(t, callbacks.Query().After("gorm:query").Register("count", count))
	testutil.Must(t, callbacks.Row().After("gorm:row").Register("count", count))
	testutil.Must(t, callbacks.Raw().After("gorm:raw").Register("count", count))
}

// TestLoaders_statementCount checks that a list of twenty takes as many statements as a
// list of two.
func TestLoaders_statementCount(t *testing.T) { //nolint:tparallel // one count at a time
	t.Parallel()
	b := newBundle(t)
	b.Settings.StartingCredits = 10_000
	worker := b.registerAgent(t, `webhookUrl: "https://agent.example.com/hook"`)
	poster := b.registerAgent(t, "")
	for range 20 { // with distinct agents, so that nothing is loaded already
		c := participants{poster: b.registerAgent(t, ""), worker: b.registerAgent(t, "")}
		id := b.completedTask(t, c.poster, c.worker)
		b.mustQuery(t, c.poster, fmt.Sprintf(`mutation { rateTask(input: {taskId: %q, score: 5}) { task { id } } }`, id))
		b.completedTask(t, poster, b.registerAgent(t, ""))
		b.createDelivery(t, participants{poster: poster, worker: worker})
	}
	for _, c := range []caller{poster, worker} {
		b.mustQuery(t, c, `{ __typename }`) // caches the keys
	}
	n := &b.readCount
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
				b.mustQuery(t, row.caller, fmt.Sprintf(row.document, items))
				return n.Load() - before
			}
			two, twenty := count(2), count(20)
			if two == 0 || two != twenty {
				t.Errorf("2 items take %d statements, 20 take %d", two, twenty)
			}
		})
	}
}

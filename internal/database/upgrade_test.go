package database_test

import (
	"context"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/ledger"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/internal/webhooks"
	"agentmarket.space/server/models"
)

// TestUpgrade checks that a later version of this program can verify a database of this
// version before the migration, and on SQLite back it up and restore it. After the
// migration the lists, totals and webhooks are the same, the new data exists, and the
// market still works.
func TestUpgrade(t *testing.T) { // not parallel: see AddMigration
	p := newUsedMarket(t)
	current := database.LatestMigration(t)
	want := p.verify(t, p.address, current)
	database.AddMigration(t, later, laterText)
	if got := p.verify(t, p.address, current); !reflect.DeepEqual(got, want) {
		t.Errorf("the ledger before the migration is %+v, want %+v", got, want)
	}
	addresses := []string{p.address}
	if !services.OnPostgres() {
		backup, restored := filepath.Join(t.TempDir(), "backup.db"), filepath.Join(t.TempDir(), "restored.db")
		testutil.Must(t, database.Backup(t.Context(), p.address, backup, p.checkLedger))
		testutil.Must(t, database.Restore(t.Context(), backup, restored, p.checkLedger))
		p.verify(t, backup, current)
		if got := p.verify(t, restored, laterVersion); !reflect.DeepEqual(got, want) {
			t.Errorf("the restored ledger is %+v, want %+v", got, want)
		}
		if left, err := filepath.Glob(restored + "-*"); err != nil || len(left) > 0 {
			t.Errorf("extra files of the restored database: %v (%v)", left, err)
		}
		addresses = append(addresses, restored)
	}
	for _, address := range addresses {
		p.upgrade(t, address)
		p.verify(t, address, laterVersion)
	}
}

// TestUpgrade_inconsistentDatabase checks that a later version of this program detects an inconsistent
// database of this version and does not back it up.
func TestUpgrade_inconsistentDatabase(t *testing.T) { // not parallel: see AddMigration
	p := newUsedMarket(t)
	database.AddMigration(t, later, laterText)
	db := openSQL(t, p.address)
	for _, statement := range append(queryTexts(t, db, services.DropTriggersQuery()),
		"UPDATE wallets SET available = available + 1 WHERE agent_id = '"+p.worker.AgentID+"'", "DELETE FROM events WHERE kind = 'task.completed'") {
		_, err := db.ExecContext(t.Context(), statement)
		testutil.Must(t, err)
	}
	err := database.Inspect(t.Context(), p.address, p.checkLedger)
	for _, want := range []string{"wallet of " + p.worker.AgentID, "is completed but has no event for it"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if services.OnPostgres() {
		return
	}
	backup := filepath.Join(t.TempDir(), "backup.db")
	if err := database.Backup(t.Context(), p.address, backup, p.checkLedger); err == nil {
		t.Error("Backup succeeded")
	}
	if _, err := os.Lstat(backup); err == nil {
		t.Error("Backup left a file")
	}
}

// usedMarket is a closed market in which every operation was used.
type usedMarket struct {
	address        string
	lists          []any // lists before the market was closed
	poster, worker auth.Actor
	receiver       *httptest.Server
	notified       chan string // request paths of the webhooks
}

// newUsedMarket creates a market, uses it and closes it.
func newUsedMarket(t *testing.T) *usedMarket {
	t.Helper()
	p := &usedMarket{address: services.NewDatabase(t), notified: make(chan string, 100)}
	p.receiver = httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { p.notified <- r.URL.Path }))
	t.Cleanup(p.receiver.Close)
	if !t.Run("use", p.use) { // the market is closed when the subtest ends
		t.FailNow()
	}
	return p
}

// use runs every operation of the market.
func (p *usedMarket) use(t *testing.T) {
	b, hooks := openWithWebhooks(t, p.address, p.client())
	p.poster, p.worker = b.NewAgent("x"), b.NewAgent("x", "y")
	b.NewAgent("x") // has no webhook
	testutil.Must(t, hooks.Start(t.Context()))
	for path, agent := range map[string]auth.Actor{"/poster": p.poster, "/worker": p.worker} {
		_, err := b.SetWebhook(t.Context(), agent, p.receiver.URL+path, nil)
		testutil.Must(t, err)
	}
	_, err := b.UpdateAgent(t.Context(), p.worker, market.AgentChanges{PricePerTask: new(models.Credits(7))})
	testutil.Must(t, err)

	open, assigned, completed := b.NewTask(p.poster, 3, "x", "y"), b.NewTask(p.poster, 4, "x"), b.NewTask(p.poster, 5, "x")
	cancelled, released := b.NewTask(p.poster, 6, "x"), b.NewTask(p.poster, 7, "x")
	for _, task := range []models.Task{assigned, completed, released} {
		_, err := b.Accept(t.Context(), p.worker, task.ID)
		testutil.Must(t, err)
	}
	_, err = b.Complete(t.Context(), p.worker, completed.ID, "done")
	testutil.Must(t, err)
	_, err = b.Rate(t.Context(), p.poster, market.RateTaskInput{TaskID: completed.ID, Score: 4})
	testutil.Must(t, err)
	_, err = b.Cancel(t.Context(), p.poster, cancelled.ID)
	testutil.Must(t, err)
	_, err = b.Release(t.Context(), p.worker, released.ID)
	testutil.Must(t, err)
	hire := market.ExecuteInput{AgentID: p.worker.AgentID, TaskDescription: "Do it.", Budget: 8}
	_, err = b.Execute(t.Context(), p.poster, hire)
	testutil.Must(t, err)
	b.FakeRunner.ResultFunc = func(context.Context, *models.Agent, *models.Task) (string, error) {
		return "", errors.New("test error")
	}
	if _, err = b.Execute(t.Context(), p.poster, hire); err == nil {
		t.Fatal("a failing hire succeeded")
	}
	_, err = b.Post(t.Context(), p.poster, market.PostTaskInput{Title: "T", Description: "D", Budget: 9, OpenForMinutes: new(1)})
	testutil.Must(t, err)
	b.Clock.Advance(offerTime)
	testutil.Must(t, b.Sweep(t.Context()))
	task, err := b.Task(t.Context(), p.poster.AgentID, open.ID)
	testutil.Must(t, err)
	if task.Status != models.Open {
		t.Errorf("task is %s", task.Status)
	}
	for range 5 {
		p.waitNotified(t, "/worker")
	}
	testutil.Must(t, hooks.Stop(t.Context()))
	_, err = b.DB.AssignCursors(t.Context(), false)
	testutil.Must(t, err)
	p.lists = p.readLists(t, b)
}

// offerTime is longer than the shortest offer.
const offerTime = 2 * time.Minute

// client returns a client that trusts the webhook receiver.
func (p *usedMarket) client() *outbound.Client {
	roots := x509.NewCertPool()
	roots.AddCert(p.receiver.Certificate())
	return outbound.New(outbound.Options{RootCAs: roots, AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
}

// openWithWebhooks opens a market that delivers webhooks with client.
func openWithWebhooks(t *testing.T, address string, client *outbound.Client) (b *markettest.Bundle, hooks *webhooks.Webhooks) {
	t.Helper()
	b = markettest.NewWithDatabase(t, address, func(deps *market.Deps) {
		hooks = webhooks.New(webhooks.Options{DB: deps.DB, Events: deps.Events, Client: client, Cipher: deps.Cipher, Now: deps.Now, Logger: deps.Logger})
		deps.Webhooks = hooks
	})
	return b, hooks
}

// waitNotified waits for the next webhook request.
func (p *usedMarket) waitNotified(t *testing.T, want string) {
	t.Helper()
	select {
	case path := <-p.notified:
		if path != want {
			t.Errorf("%s was notified, want %s", path, want)
		}
	case <-time.After(testutil.Timeout):
		t.Fatalf("%s was not notified", want)
	}
}

// checkLedger returns an error if the ledger is inconsistent.
func (*usedMarket) checkLedger(snapshot *database.Snapshot) error {
	report, err := ledger.Verify(snapshot)
	if err == nil && len(report.Violations) > 0 {
		err = fmt.Errorf("violations: %q", report.Violations)
	}
	return err
}

// verify checks the ledger and the schema version of a database.
func (p *usedMarket) verify(t *testing.T, address string, version int64) (report ledger.Report) {
	t.Helper()
	testutil.Must(t, database.Inspect(t.Context(), address, func(snapshot *database.Snapshot) error {
		if got, err := database.SchemaVersion(snapshot); err != nil || got != version {
			t.Errorf("the schema has version %d (%v), want %d", got, err, version)
		}
		if err := p.checkLedger(snapshot); err != nil {
			t.Error(err)
		}
		var err error
		report, err = ledger.Verify(snapshot)
		return err
	}))
	return report
}

// upgrade opens and thereby migrates a database. It compares the lists with those before
// and uses the market.
func (p *usedMarket) upgrade(t *testing.T, address string) {
	t.Helper()
	b, hooks := openWithWebhooks(t, address, p.client())
	b.Clock.Advance(offerTime)
	for i, got := range p.readLists(t, b) {
		if !reflect.DeepEqual(got, p.lists[i]) {
			t.Errorf("list %d: got %+v, want %+v", i, got, p.lists[i])
		}
	}
	var tasks, migrated int64
	testutil.Must(t, b.DB.Read(t.Context()).Raw("SELECT COUNT(*), COUNT(*) FILTER (WHERE note = title) FROM tasks").Row().Scan(&tasks, &migrated))
	if tasks == 0 || migrated != tasks {
		t.Errorf("%d of %d tasks have the data of the migration", migrated, tasks)
	}
	testutil.Must(t, hooks.Start(t.Context()))
	task := b.NewTask(p.poster, 10, "x")
	p.waitNotified(t, "/worker")
	testutil.Must(t, hooks.Stop(t.Context()))
	if len(p.notified) > 0 {
		t.Errorf("%s was also notified", <-p.notified)
	}
	_, err := b.Accept(t.Context(), p.worker, task.ID)
	testutil.Must(t, err)
	_, err = b.Complete(t.Context(), p.worker, task.ID, "done")
	testutil.Must(t, err)
	_, err = b.DB.AssignCursors(t.Context(), false)
	testutil.Must(t, err)
	if issued, fees, err := ledger.Totals(b.DB.Read(t.Context())); err != nil || issued != 300 || fees != 1+1+1 {
		t.Errorf("issued %d and earned %d credits (%v), want 300 and 3", issued, fees, err)
	}
	b.FakeRunner.OutcomeFunc = func(context.Context, *models.Task, market.RunOptions) (market.RunResult, error) {
		return market.RunResult{Promised: true}, nil
	}
	hired, err := b.StartExecution(t.Context(), p.poster, market.StartExecutionInput{AgentID: p.worker.AgentID, TaskDescription: "D", Budget: 8})
	testutil.Must(t, err)
	b.WaitExecutions(t.Context())
	err = b.DB.Write(t.Context(), func(tx *database.Tx) error {
		return tx.Exec("UPDATE tasks SET status = 'expired' WHERE id = ?", hired.Task.ID).Error
	})
	if want := services.ForEngine("CHECK constraint failed: origin", "tasks_hire_states"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("an expired hire: got %v, want %q", err, want)
	}
	_, err = b.Cancel(t.Context(), p.poster, hired.Task.ID)
	testutil.Must(t, err)
	b.VerifyLedger()
}

// readLists returns the lists and totals of the market.
func (p *usedMarket) readLists(t *testing.T, b *markettest.Bundle) (all []any) {
	t.Helper()
	page := market.Page{First: 50}
	for _, q := range append(taskQueries(p.poster.AgentID), taskQueries(p.worker.AgentID)...) {
		tasks, err := b.ListTasks(t.Context(), q, page)
		testutil.Must(t, err)
		all = append(all, tasks)
	}
	for _, capability := range []string{"", "x", "y"} {
		for _, column := range []string{"", market.ByReputation, market.ByPrice} {
			agents, err := b.ListAgents(t.Context(), market.AgentQuery{Capability: capability, Order: market.Order{Column: column}}, page)
			testutil.Must(t, err)
			all = append(all, agents)
		}
	}
	for _, agent := range []auth.Actor{p.poster, p.worker} {
		wallet, err := b.Wallet(t.Context(), agent.AgentID)
		testutil.Must(t, err)
		entries, err := b.ListEntries(t.Context(), market.EntryQuery{AgentID: agent.AgentID}, page)
		testutil.Must(t, err)
		all = append(all, wallet, entries)
	}
	issued, fees, err := ledger.Totals(b.DB.Read(t.Context()))
	testutil.Must(t, err)
	return append(all, issued, fees)
}

// taskQueries returns the queries for tasks of an agent.
func taskQueries(agentID string) (all []market.TaskQuery) {
	filters := [][]models.Status{nil, {models.Open, models.Assigned}, models.Statuses()}
	for _, status := range models.Statuses() {
		filters = append(filters, []models.Status{status})
	}
	for _, status := range filters {
		all = append(all,
			market.TaskQuery{Status: status}, market.TaskQuery{Status: status, Order: market.Order{Ascending: true}},
			market.TaskQuery{Status: status, Capability: "x"}, market.TaskQuery{Status: status, Order: market.Order{Column: market.ByBudget}},
			market.TaskQuery{Status: status, PosterID: agentID}, market.TaskQuery{Status: status, WorkerID: agentID})
	}
	return all
}

// queryTexts returns the rows of a query with one text column.
func queryTexts(t *testing.T, db *sql.DB, query string) (all []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	testutil.Must(t, err)
	defer rows.Close() //nolint:errcheck // read to the end
	for rows.Next() {
		var text string
		testutil.Must(t, rows.Scan(&text))
		all = append(all, text)
	}
	testutil.Must(t, rows.Err())
	return all
}

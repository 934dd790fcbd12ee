package market_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// expiryRejecter rejects the expiry of some tasks, in the transaction that expires them.
type expiryRejecter struct {
	mu        sync.Mutex
	rejected  map[string]bool
	attempted []string // ids of all expiries, in order
}

func (p *expiryRejecter) notify(event *models.Event) error {
	if event.Kind != models.TaskExpired {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.attempted = append(p.attempted, *event.TaskID)
	if p.rejected[*event.TaskID] {
		return errors.New("rejected")
	}
	return nil
}

// takeAttempted returns the attempted tasks since the last call, in order.
func (p *expiryRejecter) takeAttempted() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() { p.attempted = nil }()
	return p.attempted
}

// acceptAll stops rejecting.
func (p *expiryRejecter) acceptAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rejected = nil
}

// TestSweep_skipsFailingTasks: more than a page of tasks that cannot be ended, all due
// before the others, do not delay the others. Each is tried once, and then once a minute
// until it can be ended.
func TestSweep_skipsFailingTasks(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	p := &expiryRejecter{rejected: map[string]bool{}}
	b.FakeWebhooks.NotifyFunc = p.notify
	b.Settings.StartingCredits = 10_000
	poster := b.NewAgent()
	const poisoned = 203
	for range poisoned {
		p.rejected[b.NewTask(poster, 2).ID] = true
	}
	b.Clock.Advance(time.Second)
	others := []string{b.NewTask(poster, 2).ID, b.NewTask(poster, 2).ID}
	b.Clock.Advance(8 * 24 * time.Hour)
	err := b.Sweep(t.Context())
	if err == nil || strings.Count(err.Error(), "end task ") != 10 || !strings.Contains(err.Error(), "and 193 more tasks") {
		t.Errorf("the sweep returned %v", err)
	}
	tried := p.takeAttempted()
	if len(tried) != poisoned+len(others) || !slices.Equal(tried[poisoned:], others) {
		t.Errorf("%d tasks were tried, the last of them %v, want %d, the last %v", len(tried), tried[len(tried)-1], poisoned+len(others), others)
	}
	wantBalances(t, b, poster, 10_000-2*poisoned, 2*poisoned)

	b.Clock.Advance(time.Minute - time.Second)
	testutil.Must(t, b.Sweep(t.Context()))
	if tried := p.takeAttempted(); len(tried) != 0 {
		t.Errorf("%d tasks were tried again within a minute", len(tried))
	}
	next := b.NewTask(poster, 2).ID
	b.Clock.Advance(8 * 24 * time.Hour)
	if err := b.Sweep(t.Context()); err == nil {
		t.Error("the sweep after a minute returned no error")
	}
	if tried := p.takeAttempted(); len(tried) != poisoned+1 || tried[0] != next {
		t.Errorf("%d tasks were tried, the first of them %v, want %d, the first %s", len(tried), tried[:1], poisoned+1, next)
	}
	wantStatus(t, b, models.Task{ID: next}, models.Expired)
	p.acceptAll()
	b.Clock.Advance(time.Minute)
	testutil.Must(t, b.Sweep(t.Context()))
	wantBalances(t, b, poster, 10_000, 0)
	if p.takeAttempted(); b.Sweep(t.Context()) != nil || p.takeAttempted() != nil {
		t.Error("the last sweep was not empty")
	}
	b.VerifyLedger()
}

// TestSweep_skipsFailingHire: a hire of a stopped process that cannot be refunded does not
// delay the refunds of others.
func TestSweep_skipsFailingHire(t *testing.T) {
	t.Parallel()
	h := newHireBundle(t)
	var tasks []models.Task
	for range 3 {
		out, err := h.startHire(t, "")
		testutil.Must(t, err)
		<-h.calls
		tasks = append(tasks, out.Task)
	}
	h.removeReplica(t)
	testutil.Must(t, h.DB.Write(t.Context(), func(tx *database.Tx) error { return rejectUpdates(tx, tasks[0].ID) }))
	if err := h.Sweep(t.Context()); err == nil || !strings.Contains(err.Error(), "end task "+tasks[0].ID) {
		t.Errorf("the sweep returned %v", err)
	}
	for i, want := range []models.Status{models.Assigned, models.Failed, models.Failed} {
		wantStatus(t, h.Bundle, tasks[i], want)
	}
	wantBalances(t, h.Bundle, h.poster, 85, 0)
	testutil.Must(t, h.DB.Write(t.Context(), func(tx *database.Tx) error {
		return tx.Exec(services.ForEngine("DROP TRIGGER poisoned", "DROP TRIGGER poisoned ON tasks")).Error
	}))
	h.Clock.Advance(time.Minute)
	testutil.Must(t, h.Sweep(t.Context()))
	for range tasks {
		h.replies <- doneReply()
	}
	h.WaitExecutions(t.Context())
	h.wantHire(t, tasks[0], models.Failed, 100, 100)
}

// rejectUpdates creates a trigger that rejects every update of a task.
func rejectUpdates(tx *database.Tx, taskID string) error {
	if !services.OnPostgres() {
		return tx.Exec("CREATE TRIGGER poisoned BEFORE UPDATE ON tasks WHEN OLD.id = '" + taskID + "' BEGIN SELECT RAISE(ABORT, 'poisoned'); END").Error
	}
	return tx.Exec("CREATE TRIGGER poisoned BEFORE UPDATE ON tasks FOR EACH ROW WHEN (OLD.id = '" + taskID + "') EXECUTE FUNCTION reject_statement('poisoned')").Error
}

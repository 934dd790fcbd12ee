package market_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/models"
)

// poison is told of events, in the transaction of what happened, and refuses those of
// some tasks.
type poison struct {
	market.Notifier
	mu    sync.Mutex
	tasks map[string]bool
	order []string // of the tasks it was told of
}

func (p *poison) Announce(_ *database.Tx, event *models.Event) error {
	if event.Kind != models.TaskExpired {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.order = append(p.order, *event.TaskID)
	if p.tasks[*event.TaskID] {
		return errors.New("poisoned")
	}
	return nil
}

// taken returns in which order tasks were tried since it was called last.
func (p *poison) taken() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() { p.order = nil }()
	return p.order
}

// cure has the tasks no longer refused.
func (p *poison) cure() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tasks = nil
}

// TestSweep_poisoned: more tasks that cannot be ended than a page has, and all due
// first, hold up no other. Each is tried once, and again after a minute, after the
// others, until it can be ended.
func TestSweep_poisoned(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	p := &poison{Notifier: b.Notifier, tasks: map[string]bool{}}
	b.Notifier = p
	b.Settings.StartingCredits = 10_000
	poster := b.Agent()
	const poisoned = 203
	for range poisoned {
		p.tasks[b.Posted(poster, 2).ID] = true
	}
	b.Clock.Advance(time.Second)
	well := []string{b.Posted(poster, 2).ID, b.Posted(poster, 2).ID}
	b.Clock.Advance(8 * 24 * time.Hour)
	err := b.Sweep(t.Context())
	if err == nil || strings.Count(err.Error(), "end task ") != 10 || !strings.Contains(err.Error(), "and 193 more tasks") {
		t.Errorf("the sweep says %v", err)
	}
	tried := p.taken()
	if len(tried) != poisoned+len(well) || !slices.Equal(tried[poisoned:], well) {
		t.Errorf("%d tasks were tried, the last of them %v, want %d, the last %v", len(tried), tried[len(tried)-1], poisoned+len(well), well)
	}
	wantBalances(t, b, poster, 10_000-2*poisoned, 2*poisoned)

	b.Clock.Advance(time.Minute - time.Second)
	must(t, b.Sweep(t.Context()))
	if tried := p.taken(); len(tried) != 0 {
		t.Errorf("%d tasks were tried again at once", len(tried))
	}
	next := b.Posted(poster, 2).ID
	b.Clock.Advance(8 * 24 * time.Hour)
	if err := b.Sweep(t.Context()); err == nil {
		t.Error("the sweep after a minute says nothing")
	}
	if tried := p.taken(); len(tried) != poisoned+1 || tried[0] != next {
		t.Errorf("%d tasks were tried, want %d, %s first", len(tried), poisoned+1, next)
	}
	p.cure()
	b.Clock.Advance(time.Minute)
	must(t, b.Sweep(t.Context()))
	wantBalances(t, b, poster, 10_000, 0)
	if p.taken(); b.Sweep(t.Context()) != nil || p.taken() != nil {
		t.Error("there is more to end")
	}
	b.Verified()
}

// TestSweep_poisonedHire: a hire of a process that is gone which cannot be refunded
// holds up neither another such nor one whose deadline has come.
func TestSweep_poisonedHire(t *testing.T) {
	t.Parallel()
	h := newHiring(t)
	var tasks []models.Task
	for range 3 {
		out, err := h.starts(t, "")
		must(t, err)
		<-h.called
		tasks = append(tasks, out.Task)
	}
	h.dies(t)
	must(t, h.DB.Write(t.Context(), func(tx *database.Tx) error { return refuseChanges(tx, tasks[0].ID) }))
	if err := h.Sweep(t.Context()); err == nil || !strings.Contains(err.Error(), "end task "+tasks[0].ID) {
		t.Errorf("the sweep says %v", err)
	}
	for i, want := range []models.Status{models.Assigned, models.Failed, models.Failed} {
		wantStatus(t, h.Bundle, tasks[i], want)
	}
	wantBalances(t, h.Bundle, h.poster, 85, 0)
	must(t, h.DB.Write(t.Context(), func(tx *database.Tx) error {
		return tx.Exec(services.Says("DROP TRIGGER poisoned", "DROP TRIGGER poisoned ON tasks")).Error
	}))
	h.Clock.Advance(time.Minute)
	must(t, h.Sweep(t.Context()))
	for range tasks {
		h.answer <- done()
	}
	h.Wait(t.Context())
	h.wants(t, tasks[0], models.Failed, 100, 100)
}

// refuseChanges has the database refuse every change of a task.
func refuseChanges(tx *database.Tx, taskID string) error {
	if !services.OnPostgres() {
		return tx.Exec("CREATE TRIGGER poisoned BEFORE UPDATE ON tasks WHEN OLD.id = '" + taskID + "' BEGIN SELECT RAISE(ABORT, 'poisoned'); END").Error
	}
	return tx.Exec("CREATE TRIGGER poisoned BEFORE UPDATE ON tasks FOR EACH ROW WHEN (OLD.id = '" + taskID + "') EXECUTE FUNCTION refuse('poisoned')").Error
}

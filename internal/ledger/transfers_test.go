package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/ledger"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestTransfers_everyKind makes every kind of transfer and verifies the ledger after
// each step.
func TestTransfers_everyKind(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	poster, worker, other := b.NewAgent(), b.NewAgent(), b.NewAgent()
	step := func(err error) {
		t.Helper()
		testutil.Must(t, err)
		if report := b.VerifyLedger(); report.Issued != 300 {
			t.Errorf("%d credits were issued to three agents", report.Issued)
		}
	}
	accept := func(by auth.Actor, task models.Task) {
		t.Helper()
		_, err := b.Accept(t.Context(), by, task.ID)
		step(err)
	}
	hire := func(runErr error) error {
		b.FakeRunner.ResultFunc = func(context.Context, *models.Agent, *models.Task) (string, error) { return "done", runErr }
		_, err := b.Execute(t.Context(), poster, market.ExecuteInput{AgentID: worker.AgentID, TaskDescription: "D", Budget: 11})
		return err
	}
	released, cancelled, lapsed, expired := b.NewTask(poster, 2), b.NewTask(poster, 3), b.NewTask(poster, 5), b.NewTask(poster, 7)
	step(nil)
	accept(worker, released)
	_, err := b.Release(t.Context(), worker, released.ID)
	step(err)
	accept(other, released)
	_, err = b.Complete(t.Context(), other, released.ID, "done")
	step(err)
	_, err = b.Cancel(t.Context(), poster, cancelled.ID)
	step(err)
	for _, by := range []auth.Actor{worker, other, worker} {
		accept(by, lapsed)
		b.Clock.Advance(25 * time.Hour)
	}
	step(b.Sweep(t.Context()))
	b.Clock.Advance(7 * 24 * time.Hour)
	step(b.Sweep(t.Context()))
	step(hire(nil))
	if err := hire(models.Errorf(models.ExecutionFailed, "no")); models.CodeOf(err) != models.ExecutionFailed {
		t.Errorf("a failed hire returned %v", err)
	}
	step(nil)

	var transfers []models.Transfer
	testutil.Must(t, b.DB.Read(t.Context()).Order("kind, seq").Find(&transfers).Error)
	var got strings.Builder
	for i := range transfers {
		if i == 0 || transfers[i].Kind != transfers[i-1].Kind {
			fmt.Fprintf(&got, "; %s", transfers[i].Kind)
		}
		fmt.Fprintf(&got, " %d", transfers[i].Amount)
	}
	if want := "; escrow 2 2 5; fee 1 2; grant 100 100 100; hire 11 11; hold 2 3 5 7; payout 1 9; refund 3 5 7 11; reopen 2"; got.String() != want {
		t.Errorf("transfers are %s, want %s", got.String(), want)
	}
	wantStatus(t, b, expired, models.Expired)
}

func wantStatus(t *testing.T, b *markettest.Bundle, task models.Task, want models.Status) {
	t.Helper()
	row, err := b.Task(t.Context(), "", task.ID)
	testutil.Must(t, err)
	if row.Status != want {
		t.Errorf("the task is %s, want %s", row.Status, want)
	}
}

// transferFunc moves the credits of a task.
type transferFunc func(*database.Tx, models.Time, *models.Task) (models.Wallet, error)

// TestTransfers_rejectDuplicates checks that a repeated move is rejected because of the
// task's state or the transfer ID, and moves nothing.
func TestTransfers_rejectDuplicates(t *testing.T) {
	t.Parallel()
	b := markettest.New(t)
	poster, worker := b.NewAgent(), b.NewAgent()
	open, assigned, completed, cancelled := b.NewTask(poster, 10), b.NewTask(poster, 10), b.NewTask(poster, 10), b.NewTask(poster, 10)
	for _, task := range []models.Task{assigned, completed} {
		_, err := b.Accept(t.Context(), worker, task.ID)
		testutil.Must(t, err)
	}
	_, err := b.Complete(t.Context(), worker, completed.ID, "done")
	testutil.Must(t, err)
	_, err = b.Cancel(t.Context(), poster, cancelled.ID)
	testutil.Must(t, err)
	before := b.VerifyLedger()
	escrow := func(tx *database.Tx, now models.Time, task *models.Task) (models.Wallet, error) {
		return models.Wallet{}, ledger.Escrow(tx, now, task)
	}
	reopen := func(tx *database.Tx, now models.Time, task *models.Task) (models.Wallet, error) {
		return models.Wallet{}, ledger.Reopen(tx, now, task)
	}
	duplicate := services.ForEngine("UNIQUE constraint failed: transfers.id", "transfers_id_key")
	const (
		mismatch  = "a transfer must match the state of its task"
		overdraft = "an escrow cannot pay more than it holds"
	)
	for name, row := range map[string]struct {
		move    transferFunc
		taskID  string
		wantErr string
	}{
		"a second hold":                    {ledger.Hold, open.ID, duplicate},
		"a second escrow":                  {escrow, assigned.ID, duplicate},
		"a second payout":                  {ledger.Pay, completed.ID, overdraft},
		"a second refund":                  {ledger.RefundHeld, cancelled.ID, duplicate},
		"a refund after a payout":          {ledger.RefundEscrow, completed.ID, overdraft},
		"a refund of the hold of another":  {ledger.RefundHeld, completed.ID, mismatch},
		"a refund of an escrow never made": {ledger.RefundEscrow, cancelled.ID, overdraft},
		"a payout before completion":       {ledger.Pay, assigned.ID, mismatch},
		"a reopen after a refund":          {reopen, cancelled.ID, overdraft},
		"a hire of a posted task":          {ledger.Hire, assigned.ID, mismatch},
	} {
		err := b.DB.Write(t.Context(), func(tx *database.Tx) error {
			var task models.Task
			if err := tx.Take(&task, "id = ?", row.taskID).Error; err != nil {
				return err
			}
			_, err := row.move(tx, 1, &task)
			return err
		})
		if err == nil || !strings.Contains(err.Error(), row.wantErr) {
			t.Errorf("%s: got %v, want %q", name, err, row.wantErr)
		}
	}
	if after := b.VerifyLedger(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("the ledger was %+v and is now %+v", before, after)
	}
}

// TestPay_concurrent pays for a task from 20 goroutines without any check. The database
// allows only one payout.
func TestPay_concurrent(t *testing.T) {
	t.Parallel()
	s := newSampleMarket(t)
	var paid atomic.Int32
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			if err := s.DB.Write(t.Context(), s.completeAndPay); err == nil {
				paid.Add(1)
			} else if !strings.Contains(err.Error(), "an escrow cannot pay more than it holds") {
				t.Error(err)
			}
		})
	}
	group.Wait()
	wantPayouts(t, s.DB, s.assigned.ID, 1)
	if paid.Load() != 1 {
		t.Errorf("paid %d times", paid.Load())
	}
}

// completeAndPay completes the assigned task and pays its worker without checks.
func (s *sampleMarket) completeAndPay(tx *database.Tx) error {
	if err := tx.Exec("UPDATE tasks SET status = 'completed', result = 'done' WHERE id = ? AND status = 'assigned'", s.assigned.ID).Error; err != nil {
		return err
	}
	var task models.Task
	if err := tx.Take(&task, "id = ?", s.assigned.ID).Error; err != nil {
		return err
	}
	_, err := ledger.Pay(tx, models.NewTime(s.Clock.Now()), &task)
	return err
}

// TestPay_afterCrash checks that the worker is paid once if the process crashes before
// or after the commit and then retries, and that the ledger is consistent.
func TestPay_afterCrash(t *testing.T) {
	t.Parallel()
	s := newSampleMarketAt(t, services.SQLitePath(t)) // PostgreSQL recovers from crashes itself
	beforeCommit, afterCommit := t.TempDir(), t.TempDir()
	testutil.Must(t, s.DB.Write(t.Context(), func(tx *database.Tx) error {
		if err := s.completeAndPay(tx); err != nil {
			return err
		}
		return copyDatabaseFiles(tx, beforeCommit)
	}))
	testutil.Must(t, s.DB.Write(t.Context(), func(tx *database.Tx) error { return copyDatabaseFiles(tx, afterCommit) }))
	for folder, payouts := range map[string]int{beforeCommit: 0, afterCommit: 1} {
		db, err := database.Open(t.Context(), filepath.Join(folder, "market.db"), s.Logger)
		testutil.Must(t, err)
		t.Cleanup(func() { testutil.Must(t, db.Close()) })
		wantPayouts(t, db, s.assigned.ID, payouts)
		err = db.Write(t.Context(), s.completeAndPay)
		if (err == nil) != (payouts == 0) {
			t.Errorf("with %d payouts, another one returned %v", payouts, err)
		}
		wantPayouts(t, db, s.assigned.ID, 1)
		report, err := ledger.Verify(db.Read(t.Context()))
		testutil.Must(t, err)
		violations := slices.DeleteFunc(report.Violations, func(violation string) bool { // completeAndPay writes no event and no count
			return strings.Contains(violation, "has completed_count 1") || strings.Contains(violation, "has no event for it") || strings.Contains(violation, "the total of fees")
		})
		if len(violations) > 0 {
			t.Errorf("violations: %q", violations)
		}
	}
}

func wantPayouts(t *testing.T, db *database.DB, taskID string, want int) {
	t.Helper()
	var amounts []models.Credits
	testutil.Must(t, db.Read(t.Context()).Raw("SELECT amount FROM transfers WHERE kind = 'payout' AND task_id = ?", taskID).Scan(&amounts).Error)
	if len(amounts) != want || want == 1 && amounts[0] != 18 {
		t.Errorf("payouts are %v, want %d of 18", amounts, want)
	}
}

// copyDatabaseFiles copies the database files to a folder, as a crash would leave
// them now.
func copyDatabaseFiles(tx *database.Tx, folder string) error {
	var path string
	if err := tx.QueryRow("SELECT file FROM pragma_database_list WHERE name = 'main'", nil, &path); err != nil {
		return err
	}
	var errs error
	for _, suffix := range []string{"", "-wal"} {
		content, err := os.ReadFile(path + suffix)
		errs = errors.Join(errs, err, os.WriteFile(filepath.Join(folder, "market.db"+suffix), content, 0o600))
	}
	return errs
}

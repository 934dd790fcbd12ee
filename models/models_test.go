package models_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"agentmarket.space/server/models"
)

// TestSplit: nothing is lost, nobody is paid nothing, the platform keeps a tenth
// and what rounding leaves.
func TestSplit(t *testing.T) {
	t.Parallel()
	for budget := models.MinBudget; budget <= 10_000; budget++ {
		worker, fee := budget.Split()
		if worker+fee != budget || worker < 1 || worker != budget*9/10 {
			t.Fatalf("%d is split into %d and %d", budget, worker, fee)
		}
	}
	for budget, want := range map[models.Credits]string{2: "1 1", 10: "9 1", 15: "13 2", 25: "22 3", models.MaxBudget: "900000000 100000000"} {
		if worker, fee := budget.Split(); fmt.Sprint(worker, fee) != want {
			t.Errorf("%d is split into %d and %d, want %s", budget, worker, fee, want)
		}
	}
}

// TestTime keeps microseconds through JSON, and takes any zone.
func TestTime(t *testing.T) {
	t.Parallel()
	for written, want := range map[string]string{
		`"2026-03-13T12:00:00Z"`:           `"2026-03-13T12:00:00Z"`,
		`"2026-03-13T12:00:00.123456789Z"`: `"2026-03-13T12:00:00.123456Z"`,
		`"2026-03-13T12:00:00.5+02:00"`:    `"2026-03-13T10:00:00.5Z"`,
		`"0001-01-01T00:00:00Z"`:           `"0001-01-01T00:00:00Z"`,
	} {
		var moment models.Time
		if err := json.Unmarshal([]byte(written), &moment); err != nil {
			t.Error(err)
		}
		if text, err := json.Marshal(moment); err != nil || string(text) != want {
			t.Errorf("%s became %s (%v)", written, text, err)
		}
	}
	for _, bad := range []string{`7`, `""`, `"today"`, `"2026-13-01T00:00:00Z"`, `"2026-03-13"`} {
		var moment models.Time
		if err := json.Unmarshal([]byte(bad), &moment); err == nil {
			t.Errorf("%s was taken as %s", bad, moment)
		}
	}
	if at := models.At(time.Unix(1, 0)).Add(1500 * time.Millisecond); at.Std() != time.Unix(2, 500_000_000).UTC() {
		t.Errorf("added up to %s", at)
	}
}

// TestStatusAt is where a task stands as time goes by.
func TestStatusAt(t *testing.T) {
	t.Parallel()
	lease := models.Time(50)
	for _, row := range []struct {
		task models.Task
		now  models.Time
		want models.Status
	}{
		{models.Task{Status: models.Open, OpenUntil: 100}, 99, models.Open},
		{models.Task{Status: models.Open, OpenUntil: 100}, 100, models.Expired},
		{models.Task{Status: models.Assigned, LeaseUntil: &lease, OpenUntil: 100}, 49, models.Assigned},
		{models.Task{Status: models.Assigned, LeaseUntil: &lease, OpenUntil: 100}, 50, models.Open},
		{models.Task{Status: models.Assigned, LeaseUntil: &lease, OpenUntil: 100}, 100, models.Expired},
		{models.Task{Status: models.Assigned, LeaseUntil: &lease, OpenUntil: 100, Lapses: 1}, 50, models.Open},
		{models.Task{Status: models.Assigned, LeaseUntil: &lease, OpenUntil: 100, Lapses: 2}, 50, models.Expired},
		{models.Task{Status: models.Assigned, LeaseUntil: &lease, OpenUntil: 100, Lapses: 2}, 49, models.Assigned},
		{models.Task{Status: models.Assigned, LeaseUntil: &lease, Origin: models.Direct}, 49, models.Assigned},
		{models.Task{Status: models.Assigned, LeaseUntil: &lease, Origin: models.Direct}, 50, models.Failed},
		{models.Task{Status: models.Completed, LeaseUntil: &lease}, 1000, models.Completed},
		{models.Task{Status: models.Cancelled}, 1000, models.Cancelled},
	} {
		if got := row.task.StatusAt(row.now); got != row.want {
			t.Errorf("%+v at %d is %s, want %s", row.task, row.now, got, row.want)
		}
	}
	worker := "worker"
	lapsed := models.Task{Status: models.Assigned, WorkerID: &worker, LeaseUntil: &lease, OpenUntil: 100}
	if shown := lapsed.At(60); shown.WorkerID != nil || shown.LeaseUntil != nil || lapsed.WorkerID == nil {
		t.Errorf("a lapsed task is shown as %+v", shown)
	}
}

// TestMoves: an end is left by no move, and every state is reached by one.
func TestMoves(t *testing.T) {
	t.Parallel()
	reached := []models.Status{models.Open}
	for _, from := range models.Statuses() {
		if from.Ended() != (from != models.Open && from != models.Assigned) {
			t.Errorf("%s is an end: %t", from, from.Ended())
		}
		for _, to := range models.Statuses() {
			if from.CanBecome(to) {
				reached = append(reached, to)
			}
		}
	}
	for _, status := range models.Statuses() {
		if !slices.Contains(reached, status) {
			t.Errorf("nothing leads to %s", status)
		}
	}
}

// TestMaskURL shows the end of an address, as documented.
func TestMaskURL(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"https://my-bot.com/callback":                    ".../callback",
		"https://my-agent.com/webhooks/agentmarket":      "...gentmarket",
		"https://my-agent.com/webhooks/agentmarket?t=ab": "...arket?t=ab",
		"https://a.b": "...//a.b",
	} {
		if got := models.MaskURL(url); got != want {
			t.Errorf("%s is shown as %q, want %q", url, got, want)
		}
	}
}

// TestErrors: a refusal keeps its code however it is wrapped, and a fault shows
// nothing of itself.
func TestErrors(t *testing.T) {
	t.Parallel()
	refusal := models.Invalid("budget", "must be from %d", 2)
	wrapped := fmt.Errorf("post: %w", refusal)
	if got := models.AsError(wrapped); got != refusal || got.Error() != "budget must be from 2" || got.Field != "budget" || models.CodeOf(wrapped) != models.InvalidInput {
		t.Errorf("the refusal became %+v", got)
	}
	if got := models.AsError(errors.New("password is hunter2")); got.Code != models.Internal || got.Message != "internal error" {
		t.Errorf("the fault became %+v", got)
	}
}

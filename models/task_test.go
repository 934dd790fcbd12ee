package models_test

import (
	"slices"
	"testing"

	"agentmarket.space/server/models"
)

// TestStatus_Transitions is the table of a task's life, both ways.
func TestStatus_Transitions(t *testing.T) {
	t.Parallel()
	moves := map[models.Status][]models.Status{
		models.Open:      {models.Assigned, models.Cancelled, models.Expired},
		models.Assigned:  {models.Assigned, models.Open, models.Completed, models.Cancelled, models.Expired, models.Failed},
		models.Completed: nil,
		models.Cancelled: nil,
		models.Expired:   nil,
		models.Failed:    nil,
		"unheard of":     nil,
	}
	if known := len(models.Statuses()); known != len(moves)-1 {
		t.Errorf("%d states, want %d", known, len(moves)-1)
	}
	for from, to := range moves {
		for _, next := range append(models.Statuses(), "unheard of") {
			if got, want := from.CanBecome(next), slices.Contains(to, next); got != want {
				t.Errorf("%s may become %s: %t, want %t", from, next, got, want)
			}
		}
		if got, want := from.Ended(), len(to) == 0; got != want {
			t.Errorf("%s has ended: %t, want %t", from, got, want)
		}
	}
	models.Open.Transitions()[0] = models.Failed
	if !models.Open.CanBecome(models.Assigned) {
		t.Error("the table can be changed from outside")
	}
}

// TestTask_StatusAt is where a task stands as time goes by, to the moment. The
// lease ends at 100 and the offer at 200.
func TestTask_StatusAt(t *testing.T) {
	t.Parallel()
	lease, late := models.Time(100), models.Time(300)
	offered := models.Task{Status: models.Open, OpenUntil: 200, Origin: models.FromMarketplace}
	taken := models.Task{Status: models.Assigned, OpenUntil: 200, LeaseUntil: &lease, Origin: models.FromMarketplace}
	second, third, outlives, hired, endless := taken, taken, taken, taken, taken
	second.Lapses, third.Lapses = 1, 2
	outlives.LeaseUntil, endless.LeaseUntil = &late, nil
	hired.Origin = models.Direct
	done := taken
	done.Status = models.Completed
	for _, row := range []struct {
		name string
		task models.Task
		now  models.Time
		want models.Status
	}{
		{"an offer until it ends", offered, 199, models.Open},
		{"an offer when it ends", offered, 200, models.Expired},
		{"a lease until it ends", taken, 99, models.Assigned},
		{"a lease when it ends", taken, 100, models.Open},
		{"a lapsed lease until the offer ends", taken, 199, models.Open},
		{"a lapsed lease when the offer ends", taken, 200, models.Expired},
		{"the second lease when it ends", second, 100, models.Open},
		{"the third lease until it ends", third, 99, models.Assigned},
		{"the third lease when it ends", third, 100, models.Expired},
		{"a lease that outlives the offer", outlives, 299, models.Assigned},
		{"a lease that outlives the offer, when it ends", outlives, 300, models.Expired},
		{"a hire until its deadline", hired, 99, models.Assigned},
		{"a hire at its deadline", hired, 100, models.Failed},
		{"a lease without an end", endless, 1_000, models.Assigned},
		{"an end", done, 1_000, models.Completed},
	} {
		if got := row.task.StatusAt(row.now); got != row.want {
			t.Errorf("%s: %s, want %s", row.name, got, row.want)
		}
	}
}

// TestTask_transitionsOverTime: whatever a task is, time only makes moves that a task may make,
// and leads to an end that it never leaves.
func TestTask_transitionsOverTime(t *testing.T) {
	t.Parallel()
	const forever = 30
	for _, task := range allTasks(forever) {
		before := task.Status
		for now := range models.Time(forever + 1) {
			status := task.StatusAt(now)
			if status != before && !before.CanBecome(status) || before.Ended() && status != before {
				t.Errorf("time moves from %s to %s at %d: %+v", before, status, now, task)
			}
			before = status
			shown := task.AsOf(now)
			if free := shown.WorkerID == nil; shown.Status != status || free != (status == models.Open || task.WorkerID == nil) {
				t.Errorf("at %d, %s, it is shown as %+v", now, status, shown)
			}
		}
		if !before.Ended() {
			t.Errorf("time does not end %+v", task)
		}
	}
}

// allTasks returns a task of every kind, with an offer and a lease that end in
// either order and before the end.
func allTasks(end models.Time) (all []models.Task) {
	for _, status := range models.Statuses() {
		for _, offer := range []models.Time{0, 10, end} {
			if status == models.Open {
				all = append(all, models.Task{Status: status, Origin: models.FromMarketplace, OpenUntil: offer})
				continue
			}
			for _, lease := range []models.Time{0, 9, 10, 11, end} {
				for lapses := range models.MaxLapses {
					task := models.Task{Status: status, OpenUntil: offer, LeaseUntil: &lease, WorkerID: new("worker"), Lapses: lapses}
					for _, origin := range []models.Origin{models.FromMarketplace, models.Direct} {
						task.Origin = origin
						all = append(all, task)
					}
				}
			}
		}
	}
	return all
}

// TestTask_partiesPayoutRating: whose a task is, what it paid and how it was judged.
func TestTask_partiesPayoutRating(t *testing.T) {
	t.Parallel()
	task := models.Task{PosterID: "poster", Budget: 25, Status: models.Assigned}
	if !task.IsParty("poster") || task.IsParty("worker") || task.IsParty("") {
		t.Error("before it is taken a task is its poster's alone")
	}
	if task.Payout() != nil || task.Rating() != nil {
		t.Error("a task that is under way was paid or rated")
	}
	task.WorkerID, task.Status = new("worker"), models.Completed
	if !task.IsParty("worker") || task.IsParty("other") || task.IsParty("") {
		t.Error("a taken task is its poster's and its worker's")
	}
	if payout := task.Payout(); payout == nil || *payout != (models.TaskPayout{WorkerAmount: 22, FeeAmount: 3}) {
		t.Errorf("a completed task paid %+v", payout)
	}
	task.RatingScore, task.RatingComment, task.RatedAt = new(4), new("good"), new(models.Time(7))
	if rating := task.Rating(); rating == nil || rating.Score != 4 || *rating.Comment != "good" || rating.CreatedAt != 7 {
		t.Errorf("it is rated %+v", rating)
	}
}

package models_test

import (
	"slices"
	"testing"

	"agentmarket.space/server/models"
)

// TestStatus_Transitions checks every pair of statuses.
func TestStatus_Transitions(t *testing.T) {
	t.Parallel()
	transitions := map[models.Status][]models.Status{
		models.Open:      {models.Assigned, models.Cancelled, models.Expired},
		models.Assigned:  {models.Assigned, models.Open, models.Completed, models.Cancelled, models.Expired, models.Failed},
		models.Completed: nil,
		models.Cancelled: nil,
		models.Expired:   nil,
		models.Failed:    nil,
		"unknown":        nil,
	}
	if known := len(models.Statuses()); known != len(transitions)-1 {
		t.Errorf("%d states, want %d", known, len(transitions)-1)
	}
	for from, to := range transitions {
		for _, next := range append(models.Statuses(), "unknown") {
			if got, want := from.CanBecome(next), slices.Contains(to, next); got != want {
				t.Errorf("%s can become %s: %t, want %t", from, next, got, want)
			}
		}
		if got, want := from.Ended(), len(to) == 0; got != want {
			t.Errorf("%s has ended: %t, want %t", from, got, want)
		}
	}
	models.Open.Transitions()[0] = models.Failed
	if !models.Open.CanBecome(models.Assigned) {
		t.Error("a caller can change the table")
	}
}

// TestTask_StatusAt checks the status before and at each deadline. The lease ends at 100
// and the offer at 200.
func TestTask_StatusAt(t *testing.T) {
	t.Parallel()
	lease, late := models.Time(100), models.Time(300)
	open := models.Task{Status: models.Open, OpenUntil: 200, Origin: models.OriginMarketplace}
	assigned := models.Task{Status: models.Assigned, OpenUntil: 200, LeaseUntil: &lease, Origin: models.OriginMarketplace}
	second, third, longLease, hired, endless := assigned, assigned, assigned, assigned, assigned
	second.Lapses, third.Lapses = 1, 2
	longLease.LeaseUntil, endless.LeaseUntil = &late, nil
	hired.Origin = models.OriginDirect
	done := assigned
	done.Status = models.Completed
	for _, row := range []struct {
		name string
		task models.Task
		now  models.Time
		want models.Status
	}{
		{"an offer until it ends", open, 199, models.Open},
		{"an offer when it ends", open, 200, models.Expired},
		{"a lease until it ends", assigned, 99, models.Assigned},
		{"a lease when it ends", assigned, 100, models.Open},
		{"a lapsed lease until the offer ends", assigned, 199, models.Open},
		{"a lapsed lease when the offer ends", assigned, 200, models.Expired},
		{"the second lease when it ends", second, 100, models.Open},
		{"the third lease until it ends", third, 99, models.Assigned},
		{"the third lease when it ends", third, 100, models.Expired},
		{"a lease that outlives the offer", longLease, 299, models.Assigned},
		{"a lease that outlives the offer, when it ends", longLease, 300, models.Expired},
		{"a hire until its deadline", hired, 99, models.Assigned},
		{"a hire at its deadline", hired, 100, models.Failed},
		{"a lease without a deadline", endless, 1_000, models.Assigned},
		{"a completed task", done, 1_000, models.Completed},
	} {
		if got := row.task.StatusAt(row.now); got != row.want {
			t.Errorf("%s: %s, want %s", row.name, got, row.want)
		}
	}
}

// TestTask_transitionsOverTime checks that time alone changes a task only by allowed
// transitions and always leads to a final status.
func TestTask_transitionsOverTime(t *testing.T) {
	t.Parallel()
	const end = 30
	for _, task := range allTasks(end) {
		before := task.Status
		for now := range models.Time(end + 1) {
			status := task.StatusAt(now)
			if status != before && !before.CanBecome(status) || before.Ended() && status != before {
				t.Errorf("changed from %s to %s at %d: %+v", before, status, now, task)
			}
			before = status
			current := task.AsOf(now)
			if free := current.WorkerID == nil; current.Status != status || free != (status == models.Open || task.WorkerID == nil) {
				t.Errorf("at %d with status %s, AsOf returns %+v", now, status, current)
			}
		}
		if !before.Ended() {
			t.Errorf("the status at the end is not final: %+v", task)
		}
	}
}

// allTasks returns tasks of every status, origin and number of lapses, whose offers and
// leases end in either order.
func allTasks(end models.Time) (all []models.Task) {
	for _, status := range models.Statuses() {
		for _, offer := range []models.Time{0, 10, end} {
			if status == models.Open {
				all = append(all, models.Task{Status: status, Origin: models.OriginMarketplace, OpenUntil: offer})
				continue
			}
			for _, lease := range []models.Time{0, 9, 10, 11, end} {
				for lapses := range models.MaxLapses {
					task := models.Task{Status: status, OpenUntil: offer, LeaseUntil: &lease, WorkerID: new("worker"), Lapses: lapses}
					for _, origin := range []models.Origin{models.OriginMarketplace, models.OriginDirect} {
						task.Origin = origin
						all = append(all, task)
					}
				}
			}
		}
	}
	return all
}

// TestTask_partiesPayoutRating checks IsParty, Payout and Rating.
func TestTask_partiesPayoutRating(t *testing.T) {
	t.Parallel()
	task := models.Task{PosterID: "poster", Budget: 25, Status: models.Assigned}
	if !task.IsParty("poster") || task.IsParty("worker") || task.IsParty("") {
		t.Error("the poster must be the only party of a task without a worker")
	}
	if task.Payout() != nil || task.Rating() != nil {
		t.Error("an assigned task has a payout or a rating")
	}
	task.WorkerID, task.Status = new("worker"), models.Completed
	if !task.IsParty("worker") || task.IsParty("other") || task.IsParty("") {
		t.Error("the poster and the worker must be the only parties")
	}
	if payout := task.Payout(); payout == nil || *payout != (models.TaskPayout{WorkerAmount: 22, FeeAmount: 3}) {
		t.Errorf("the payout is %+v", payout)
	}
	task.RatingScore, task.RatingComment, task.RatedAt = new(4), new("good"), new(models.Time(7))
	if rating := task.Rating(); rating == nil || rating.Score != 4 || *rating.Comment != "good" || rating.CreatedAt != 7 {
		t.Errorf("the rating is %+v", rating)
	}
}

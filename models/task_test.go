package models_test

import (
	"slices"
	"testing"

	"agentmarket.space/server/models"
)

// TestStatus_Moves is the table of a task's life, both ways.
func TestStatus_Moves(t *testing.T) {
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
	models.Open.Moves()[0] = models.Failed
	if !models.Open.CanBecome(models.Assigned) {
		t.Error("the table can be changed from outside")
	}
}

// The hours of the task in TestTask_StatusAt.
const (
	leaseEnds models.Time = 100
	offerEnds models.Time = 200
)

// TestTask_StatusAt: time alone moves a task on, at the very moment it says.
func TestTask_StatusAt(t *testing.T) {
	t.Parallel()
	posted := models.Task{Status: models.Open, Origin: models.FromMarketplace, OpenUntil: offerEnds}
	taken := models.Task{Status: models.Assigned, Origin: models.FromMarketplace, OpenUntil: offerEnds, LeaseUntil: new(leaseEnds), WorkerID: new("worker")}
	with := func(task models.Task, change func(*models.Task)) models.Task {
		change(&task)
		return task
	}
	longLease := with(taken, func(task *models.Task) { task.LeaseUntil = new(offerEnds + 100) })
	hired := with(taken, func(task *models.Task) { task.Origin = models.Direct })
	for name, row := range map[string]struct {
		task models.Task
		now  models.Time
		want models.Status
	}{
		"an offer until it ends":                      {posted, offerEnds - 1, models.Open},
		"an offer when it ends":                       {posted, offerEnds, models.Expired},
		"a lease until it ends":                       {taken, leaseEnds - 1, models.Assigned},
		"a lease when it ends":                        {taken, leaseEnds, models.Open},
		"the second lapse":                            {with(taken, func(task *models.Task) { task.Lapses = 1 }), leaseEnds, models.Open},
		"the third lapse":                             {with(taken, func(task *models.Task) { task.Lapses = 2 }), leaseEnds, models.Expired},
		"the third lease until it ends":               {with(taken, func(task *models.Task) { task.Lapses = 2 }), leaseEnds - 1, models.Assigned},
		"a lapse until the offer ends":                {taken, offerEnds - 1, models.Open},
		"a lapse when the offer ends":                 {taken, offerEnds, models.Expired},
		"a lease that outlives the offer":             {longLease, offerEnds + 99, models.Assigned},
		"a lease that outlives the offer, at its end": {longLease, offerEnds + 100, models.Expired},
		"a hire until its deadline":                   {hired, leaseEnds - 1, models.Assigned},
		"a hire at its deadline":                      {hired, leaseEnds, models.Failed},
		"a lease without an end":                      {with(taken, func(task *models.Task) { task.LeaseUntil = nil }), offerEnds, models.Assigned},
		"a completed task for ever":                   {with(taken, func(task *models.Task) { task.Status = models.Completed }), offerEnds, models.Completed},
		"a cancelled task for ever":                   {with(posted, func(task *models.Task) { task.Status = models.Cancelled }), offerEnds, models.Cancelled},
		"a failed hire for ever":                      {with(hired, func(task *models.Task) { task.Status = models.Failed }), offerEnds, models.Failed},
	} {
		if got := row.task.StatusAt(row.now); got != row.want {
			t.Errorf("%s: %s, want %s", name, got, row.want)
		}
		if got := row.task.Status; row.want != got && !got.CanBecome(row.want) {
			t.Errorf("%s: time moves it from %s to %s, which no task may", name, got, row.want)
		}
		shown := row.task.At(row.now)
		if open := row.want == models.Open; shown.Status != row.want || open && (shown.WorkerID != nil || shown.LeaseUntil != nil) ||
			!open && shown.WorkerID != row.task.WorkerID {
			t.Errorf("%s: is shown as %+v", name, shown)
		}
	}
	if taken.WorkerID == nil || taken.Status != models.Assigned {
		t.Error("showing a task changed it")
	}
}

// TestTask: whose a task is, what it paid and how it was judged.
func TestTask(t *testing.T) {
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

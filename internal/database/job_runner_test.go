package database_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/riverqueue/river"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
)

// signalArgs is a job that reports its run. It snoozes once if Snooze is not 0.
type signalArgs struct{ Snooze time.Duration }

func (signalArgs) Kind() string { return "signal" }

type signalWorker struct {
	river.WorkerDefaults[signalArgs]
	ran chan string
}

func (w *signalWorker) Work(_ context.Context, job *river.Job[signalArgs]) error {
	if job.Args.Snooze > 0 && len(job.Metadata) <= len("{}") {
		w.ran <- "snoozed"
		return river.JobSnooze(job.Args.Snooze)
	}
	w.ran <- "ran"
	return nil
}

// startRunner starts a runner that polls so rarely that only notifications can wake it.
func startRunner(t *testing.T, awakeFor time.Duration) (*database.DB, *database.JobRunner, *signalWorker) {
	t.Helper()
	db, err := database.Open(t.Context(), services.NewDatabase(t), slog.New(slog.DiscardHandler))
	testutil.Must(t, err)
	worker := &signalWorker{ran: make(chan string, 10)}
	workers := river.NewWorkers()
	river.AddWorker(workers, worker)
	r, err := db.NewJobRunner(t.Context(), &river.Config{
		Queues: map[string]river.QueueConfig{"a": {MaxWorkers: 2}}, Workers: workers, FetchCooldown: time.Millisecond, FetchPollInterval: time.Hour,
		Logger: slog.New(slog.DiscardHandler),
	})
	testutil.Must(t, err)
	r.SetAwakeFor(awakeFor)
	r.Start()
	t.Cleanup(func() {
		testutil.Must(t, r.Stop(context.WithoutCancel(t.Context())))
		testutil.Must(t, db.Close())
	})
	return db, r, worker
}

func enqueueSignal(t *testing.T, db *database.DB, args signalArgs, due time.Time) {
	t.Helper()
	testutil.Must(t, db.Write(t.Context(), func(tx *database.Tx) error {
		tx.Enqueue(args, &river.InsertOpts{Queue: "a", ScheduledAt: due})
		return nil
	}))
}

// TestJobRunner: jobs run when they are due although nothing polls for them.
func TestJobRunner(t *testing.T) {
	t.Parallel()
	db, _, worker := startRunner(t, time.Hour)
	for range 2 { // the second one finds the client awake
		enqueueSignal(t, db, signalArgs{}, time.Time{})
		testutil.Equal(t, "job", testutil.Receive(t, "a committed job", worker.ran), "ran")
	}
	enqueueSignal(t, db, signalArgs{Snooze: time.Second}, time.Time{})
	testutil.Equal(t, "job", testutil.Receive(t, "a job that snoozes", worker.ran), "snoozed")
	testutil.Equal(t, "job", testutil.Receive(t, "the snoozed job", worker.ran), "ran")
}

// TestJobRunner_sleeps: without jobs the client stops, so that an idle process has no
// tickers, and a commit starts it again.
func TestJobRunner_sleeps(t *testing.T) {
	t.Parallel()
	db, r, worker := startRunner(t, 20*time.Millisecond)
	for range 3 {
		enqueueSignal(t, db, signalArgs{}, time.Time{})
		testutil.Equal(t, "job", testutil.Receive(t, "a committed job", worker.ran), "ran")
		testutil.Eventually(t, "the client to sleep", func() bool { return r.Listeners() == 1 })
	}
}

// TestJobRunner_existingJobs: jobs from before the start run, and Stop can be repeated.
func TestJobRunner_existingJobs(t *testing.T) {
	t.Parallel()
	db, r, worker := startRunner(t, time.Hour)
	testutil.Must(t, r.Stop(t.Context()))
	testutil.Must(t, r.Stop(t.Context()))
	enqueueSignal(t, db, signalArgs{}, time.Time{})
	r.Start()
	r.Start()
	testutil.Equal(t, "job", testutil.Receive(t, "a job from before the start", worker.ran), "ran")
}

package webhooks

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"agentmarket.space/server/internal/database"
)

// The job queues. Retries have a separate queue and separate workers, so a backlog
// of retries never delays first attempts. The retry queue also takes first attempts
// to endpoints that are failing, slow or crowded; see [Webhooks.queueFor].
const (
	matchQueue        = "matches"
	firstAttemptQueue = "deliveries"
	retryQueue        = "retries"
	maxMatchWorkers   = 4
	// maxFirstAttemptWorkers limits the first attempts that run or wait for a
	// slot. With [maxPerEndpoint] requests each, 64 endpoints must start to hang
	// at the same time to occupy all workers. They can do so for one timeout, and
	// again after their penalties have decayed (see [penaltyDecay]).
	maxFirstAttemptWorkers = 256
	maxRetryWorkers        = 64
)

const (
	// fetchCooldown limits throughput to workers/cooldown jobs per second. River's
	// default of 100 ms gave 500 jobs/s; 20 ms gives about 2,000.
	fetchCooldown = 20 * time.Millisecond
	// fetchPollInterval is the maximum delay of a due job that this process did not
	// commit or snooze itself. It knows about the others; see [database.JobRunner].
	fetchPollInterval = 2 * time.Second
	// testPollInterval is fetchPollInterval with a clock that can be advanced: no timer
	// knows when.
	testPollInterval = 250 * time.Millisecond
	// jobGrace is the time a job has in addition to the timeout of its request.
	jobGrace = 15 * time.Second
	// rescueAfter is when a job counts as stuck and is run again.
	rescueAfter = 90 * time.Second
	// completedJobRetention is short because the deliveries are the record.
	completedJobRetention = time.Minute
)

// maxJobAttempts limits how often a job runs that fails because of our own
// errors, such as an unavailable database. With one attempt per minute it is
// about a week. Failures of receivers do not count.
const maxJobAttempts = 10_000

func (w *Webhooks) riverConfig() (*river.Config, error) {
	workers := river.NewWorkers()
	err := errors.Join(
		river.AddWorkerSafely(workers, &matchWorker{webhooks: w}),
		river.AddWorkerSafely(workers, &deliverWorker{webhooks: w}),
	)
	if err != nil {
		return nil, err
	}
	config := &river.Config{
		Queues: map[string]river.QueueConfig{
			matchQueue:        {MaxWorkers: maxMatchWorkers},
			firstAttemptQueue: {MaxWorkers: maxFirstAttemptWorkers},
			retryQueue:        {MaxWorkers: maxRetryWorkers},
		},
		Workers:                     workers,
		FetchCooldown:               fetchCooldown,
		FetchPollInterval:           w.pollInterval,
		JobTimeout:                  w.timeout + jobGrace,
		RescueStuckJobsAfter:        max(rescueAfter, 2*(w.timeout+jobGrace)),
		CompletedJobRetentionPeriod: completedJobRetention,
		RetryPolicy:                 jobRetryPolicy{now: w.now},
		ErrorHandler:                jobErrorHandler{logger: w.logger},
		Logger:                      slog.New(warnLogHandler{Handler: w.logger.Handler(), fileLost: w.db.FileLost()}),
	}
	if w.hasTestClock {
		config.Test.Time = riverClock(w.now)
	}
	return config, nil
}

// riverClock makes River use a clock that can be advanced.
type riverClock func() time.Time

// Now returns the current time of the clock.
func (c riverClock) Now() time.Time { return c() }

// NowOrNil returns the current time of the clock, so that River does not use the
// clock of the database.
func (c riverClock) NowOrNil() *time.Time { return new(c()) }

// jobRetryPolicy schedules the next run of a job that returned an error.
type jobRetryPolicy struct{ now func() time.Time }

// NextRetry waits one second longer after each failure, up to a minute.
func (p jobRetryPolicy) NextRetry(job *rivertype.JobRow) time.Time {
	return p.now().Add(min(time.Duration(len(job.Errors)+1)*time.Second, time.Minute))
}

// jobErrorHandler logs errors and panics of jobs. River retries the jobs.
type jobErrorHandler struct{ logger *slog.Logger }

// HandleError logs an error of a job, unless the store has logged it.
func (h jobErrorHandler) HandleError(ctx context.Context, job *rivertype.JobRow, err error) *river.ErrorHandlerResult {
	if errors.Is(err, database.ErrFileLost) {
		return nil
	}
	h.logger.ErrorContext(ctx, "webhook job failed", slog.String("kind", job.Kind), slog.Int64("job_id", job.ID), slog.Any("error", err))
	return nil
}

// HandlePanic logs a panic of a job.
func (h jobErrorHandler) HandlePanic(ctx context.Context, job *rivertype.JobRow, value any, trace string) *river.ErrorHandlerResult {
	h.logger.ErrorContext(ctx, "webhook job panicked", slog.String("kind", job.Kind), slog.Int64("job_id", job.ID),
		slog.Any("panic", value), slog.String("trace", trace))
	return nil
}

// warnLogHandler drops River's log records below level warn, and all of them after the
// SQLite file was removed or replaced, which the store has logged.
type warnLogHandler struct {
	slog.Handler

	fileLost <-chan struct{}
}

// Enabled reports whether records of level are logged.
func (h warnLogHandler) Enabled(ctx context.Context, level slog.Level) bool {
	select {
	case <-h.fileLost:
		return false
	default:
		return level >= slog.LevelWarn && h.Handler.Enabled(ctx, level)
	}
}

// WithAttrs returns the handler with attributes.
func (h warnLogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return warnLogHandler{h.Handler.WithAttrs(attrs), h.fileLost}
}

// WithGroup returns the handler with a group.
func (h warnLogHandler) WithGroup(name string) slog.Handler {
	return warnLogHandler{h.Handler.WithGroup(name), h.fileLost}
}

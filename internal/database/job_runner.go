package database

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/riverqueue/river"
)

const (
	// defaultAwakeFor is the time between two checks whether the job client can sleep. It
	// sleeps if no job runs or becomes due within it.
	defaultAwakeFor = 10 * time.Second
	// cancelGrace is how long Stop waits for jobs that it has canceled.
	cancelGrace = 5 * time.Second
	// maxJobEvents limits the snoozed and failed jobs that wait for their timer. Workers
	// find further ones when they poll.
	maxJobEvents = 5000
)

// JobRunner runs a job client while there are jobs. Without jobs the client sleeps: it
// has tickers that would wake the process 20 times a second. A commit of this process
// wakes it at once; jobs that become due and jobs of other processes are found by a
// query at every poll interval.
type JobRunner struct {
	db       *DB
	client   *river.Client[*sql.Tx]
	config   *river.Config
	listener *jobListener
	now      func() time.Time
	awakeFor time.Duration
	wakers   sync.WaitGroup

	mu      sync.Mutex
	cancel  context.CancelFunc // nil unless started
	done    chan struct{}      // closed when the loop has ended
	running bool               // the client runs; owned by the loop until done is closed
}

// NewJobRunner returns a runner for the queues in config. Jobs of a process that crashed
// become available again: on SQLite before NewJobRunner returns, on PostgreSQL when the
// heartbeat of the process expires. On PostgreSQL a job that runs longer than
// config.JobTimeout also becomes available again, because its process may have lost it
// with a connection.
func (db *DB) NewJobRunner(ctx context.Context, config *river.Config) (*JobRunner, error) {
	client, err := db.newJobClient(ctx, config)
	if err != nil {
		return nil, err
	}
	r := &JobRunner{
		db: db, client: client, config: config, listener: db.jobNotifier.newListener(),
		now:      time.Now, //nolint:forbidigo // River's own clock, unless config has another
		awakeFor: defaultAwakeFor,
	}
	if config.Test.Time != nil {
		r.now = config.Test.Time.Now
	}
	return r, nil
}

// newJobClient returns a job client that the notifier wakes.
func (db *DB) newJobClient(ctx context.Context, config *river.Config) (*river.Client[*sql.Tx], error) {
	config.ID = db.replicaID
	if db.pg != nil {
		db.pg.mu.Lock()
		db.pg.jobTimeout = config.JobTimeout
		db.pg.mu.Unlock()
		return river.NewClient(postgresJobDriver{db.pg.jobDriver, db.jobNotifier}, config)
	}
	err := db.Write(ctx, func(tx *Tx) error {
		return tx.Exec("UPDATE river_job SET state = 'available' WHERE state = 'running'").Error
	})
	if err != nil {
		return nil, fmt.Errorf("release running jobs: %w", err)
	}
	sqlDB, err := db.writer.DB()
	if err != nil {
		return nil, err
	}
	return river.NewClient(newSQLiteJobDriver(sqlDB, db.jobNotifier), config)
}

// Start starts to run jobs and returns. Call Stop to end the work. It does nothing if
// the runner has started.
func (r *JobRunner) Start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancel != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background()) //nolint:forbidigo // ends with Stop
	r.cancel, r.done = cancel, make(chan struct{})
	r.listener.register()
	go r.loop(ctx)
}

// Stop stops fetching jobs and waits for running ones until ctx is done. It then
// cancels the remaining ones; they run again after the next start. Stop does nothing
// before Start.
func (r *JobRunner) Stop(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancel == nil {
		return nil
	}
	r.cancel()
	<-r.done
	r.listener.unregister()
	r.cancel = nil
	if !r.running {
		return nil
	}
	if r.client.Stop(ctx) != nil {
		graceCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelGrace)
		defer cancel()
		if err := r.client.StopAndCancel(graceCtx); err != nil {
			return err //nolint:wrapcheck // the caller names the jobs
		}
	}
	r.running = false
	r.wakers.Wait()
	return nil
}

// loop wakes the client when there are jobs and lets it sleep when there are none, until
// ctx is done. It leaves a running client to Stop.
func (r *JobRunner) loop(ctx context.Context) {
	defer close(r.done)
	ticker := time.NewTicker(r.config.FetchPollInterval)
	defer ticker.Stop()
	due, err := r.hasJobs(ctx, 0, "available", "retryable", "scheduled")
	due = due || err != nil
	for ctx.Err() == nil {
		if due {
			r.work(ctx)
			ticker.Reset(r.config.FetchPollInterval)
		}
		select {
		case <-ctx.Done():
		case <-r.listener.woken:
			due = true
		case <-ticker.C:
			if due, err = r.hasJobs(ctx, 0, "available", "retryable", "scheduled"); err != nil && ctx.Err() == nil {
				r.db.logger.WarnContext(ctx, "cannot look for jobs, retrying", slog.Any("error", err))
			}
		}
	}
}

// work runs the client until it can sleep or ctx is done.
func (r *JobRunner) work(ctx context.Context) {
	events, unsubscribe := r.client.SubscribeConfig(&river.SubscribeConfig{
		ChanSize: maxJobEvents, Kinds: []river.EventKind{river.EventKindJobSnoozed, river.EventKindJobFailed},
	})
	if err := r.client.Start(context.WithoutCancel(ctx)); err != nil {
		unsubscribe()
		if ctx.Err() == nil {
			r.db.logger.ErrorContext(ctx, "cannot start the job workers, retrying", slog.Any("error", err))
		}
		return
	}
	r.running = true
	r.wakers.Go(func() { r.wakeForEvents(events) })
	ticker := time.NewTicker(r.awakeFor)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		r.listener.clear() // a job that is committed from here on wakes the client again
		busy, err := r.hasJobs(ctx, r.awakeFor, "available", "retryable", "running", "scheduled")
		if busy || err != nil { // the client reports errors itself
			continue
		}
		if r.client.Stop(ctx) == nil {
			r.running = false
			r.wakers.Wait()
		}
		return
	}
}

// wakeForEvents wakes the workers when a snoozed or failed job is due, until the client
// stops, which closes events.
func (r *JobRunner) wakeForEvents(events <-chan *river.Event) {
	for event := range events {
		r.db.jobNotifier.wake(event.Job.Queue, event.Job.ScheduledAt)
	}
}

// hasJobs reports whether there are jobs in one of the states that are due within a
// time.
func (r *JobRunner) hasJobs(ctx context.Context, within time.Duration, states ...string) (found bool, err error) {
	until := any(r.now().Add(within))
	if r.db.pg == nil {
		until = r.now().Add(within).UTC().Format("2006-01-02 15:04:05.000") // as River writes times
	}
	err = r.db.Read(ctx).Raw(`SELECT EXISTS (SELECT 1 FROM river_job
		WHERE state IN ? AND queue IN ? AND priority IN (1, 2, 3, 4) AND scheduled_at <= ?)`,
		states, slices.Collect(maps.Keys(r.config.Queues)), until).Scan(&found).Error
	return found, err
}

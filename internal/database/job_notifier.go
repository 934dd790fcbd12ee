package database

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
)

const (
	// insertTopic is the topic to which River's job workers listen for new jobs.
	insertTopic = "river_insert"
	// maxNotifyDelay limits the timers for jobs that are due later. Workers find the
	// others when they poll.
	maxNotifyDelay = time.Minute
	// notifyStep is the interval to which due times are rounded, so that many jobs share
	// one timer.
	notifyStep = 50 * time.Millisecond
)

// jobNotifier wakes the job workers of this process when jobs are due. Without it they
// would have to poll several times a second: River's SQLite driver has only a table of
// notifications that it polls, and a NOTIFY in a PostgreSQL transaction serializes
// commits. Workers of other processes find jobs that nobody takes when they poll.
type jobNotifier struct {
	mu        sync.Mutex
	listeners map[*jobListener]struct{}
	timers    map[timerKey]*time.Timer
}

type timerKey struct {
	queue string
	due   time.Time
}

func newJobNotifier() *jobNotifier {
	return &jobNotifier{listeners: map[*jobListener]struct{}{}, timers: map[timerKey]*time.Timer{}}
}

// wake makes the job workers of this process look for due jobs of a queue now or, if
// due is in the future, at that time.
func (n *jobNotifier) wake(queue string, due time.Time) {
	delay := time.Until(due) //nolint:forbidigo // a timer needs the real time; it only has to fire often enough
	n.mu.Lock()
	defer n.mu.Unlock()
	if delay <= 0 {
		n.notify(queue)
		return
	}
	if delay > maxNotifyDelay || len(n.listeners) == 0 {
		return
	}
	key := timerKey{queue: queue, due: due.Truncate(notifyStep).Add(notifyStep)}
	if n.timers[key] != nil {
		return
	}
	n.timers[key] = time.AfterFunc(delay+notifyStep, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.timers, key)
		n.notify(queue)
	})
}

// notify wakes the workers of a queue. The caller holds n.mu.
func (n *jobNotifier) notify(queue string) {
	for listener := range n.listeners {
		listener.notify(queue)
	}
}

// wakeForJobs wakes the workers of committed jobs.
func (n *jobNotifier) wakeForJobs(jobs []river.InsertManyParams) {
	for _, job := range jobs {
		var due time.Time
		if job.InsertOpts != nil {
			due = job.InsertOpts.ScheduledAt
		}
		n.wake(queueOf(job), due)
	}
}

// queueOf returns the queue into which River inserts a job.
func queueOf(job river.InsertManyParams) string {
	if job.InsertOpts != nil && job.InsertOpts.Queue != "" {
		return job.InsertOpts.Queue
	}
	if args, ok := job.Args.(river.JobArgsWithInsertOpts); ok {
		if queue := args.InsertOpts().Queue; queue != "" {
			return queue
		}
	}
	return river.QueueDefault
}

// jobListener receives the notifications of a jobNotifier for one job client. It
// implements [riverdriver.Listener].
type jobListener struct {
	notifier *jobNotifier
	woken    chan struct{}

	mu     sync.Mutex
	queues map[string]struct{} // with a notification that is not delivered yet
}

func (n *jobNotifier) newListener() *jobListener {
	return &jobListener{notifier: n, woken: make(chan struct{}, 1), queues: map[string]struct{}{}}
}

func (l *jobListener) notify(queue string) {
	l.mu.Lock()
	l.queues[queue] = struct{}{}
	l.mu.Unlock()
	select {
	case l.woken <- struct{}{}:
	default:
	}
}

// WaitForNotification waits for a notification about one queue.
func (l *jobListener) WaitForNotification(ctx context.Context) (*riverdriver.Notification, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if queue, ok := l.next(); ok {
			return &riverdriver.Notification{Topic: insertTopic, Payload: fmt.Sprintf(`{"queue": %q}`, queue)}, nil
		}
		select {
		case <-l.woken:
		case <-ctx.Done():
		}
	}
}

func (l *jobListener) next() (queue string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for queue := range l.queues {
		delete(l.queues, queue)
		return queue, true
	}
	return "", false
}

// clear drops the notifications that are not delivered yet.
func (l *jobListener) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.queues)
	select {
	case <-l.woken:
	default:
	}
}

// register starts the notifications.
func (l *jobListener) register() {
	l.notifier.mu.Lock()
	defer l.notifier.mu.Unlock()
	l.notifier.listeners[l] = struct{}{}
}

// unregister ends the notifications, and the timers after the last listener.
func (l *jobListener) unregister() {
	l.notifier.mu.Lock()
	defer l.notifier.mu.Unlock()
	delete(l.notifier.listeners, l)
	if len(l.notifier.listeners) == 0 {
		for key, timer := range l.notifier.timers {
			timer.Stop()
			delete(l.notifier.timers, key)
		}
	}
}

// Connect starts the notifications.
func (l *jobListener) Connect(context.Context) error {
	l.register()
	return nil
}

// Close ends the notifications.
func (l *jobListener) Close(context.Context) error {
	l.unregister()
	return nil
}

// Listen does nothing: there is only one topic with notifications.
func (l *jobListener) Listen(context.Context, string) error { return nil }

// Unlisten does nothing, like Listen.
func (l *jobListener) Unlisten(context.Context, string) error { return nil }

// Ping returns nil: there is no connection that could break.
func (l *jobListener) Ping(context.Context) error { return nil }

// Schema returns "", the default schema.
func (l *jobListener) Schema() string { return "" }

// SetAfterConnectExec does nothing: River uses it in its tests.
func (l *jobListener) SetAfterConnectExec(string) {}

// The drivers below listen to the notifier and send no notifications through the
// database.
type (
	sqliteJobDriver struct {
		*riversqlite.Driver
		notifier *jobNotifier
	}
	postgresJobDriver struct {
		*riverdatabasesql.Driver
		notifier *jobNotifier
	}
	postgresInsertDriver struct{ *riverpgxv5.Driver }
)

var (
	_ riverdriver.Driver[*sql.Tx] = sqliteJobDriver{}
	_ riverdriver.Driver[*sql.Tx] = postgresJobDriver{}
	_ riverdriver.Driver[pgx.Tx]  = postgresInsertDriver{}
)

func newSQLiteJobDriver(writer *sql.DB, n *jobNotifier) sqliteJobDriver {
	return sqliteJobDriver{riversqlite.New(writer), n}
}

// GetListener returns a listener to the notifier.
func (d sqliteJobDriver) GetListener(*riverdriver.GetListenenerParams) riverdriver.Listener {
	return d.notifier.newListener()
}

// SupportsListenNotify returns false, so that River writes no notifications.
func (sqliteJobDriver) SupportsListenNotify() bool { return false }

// GetListener returns a listener to the notifier.
func (d postgresJobDriver) GetListener(*riverdriver.GetListenenerParams) riverdriver.Listener {
	return d.notifier.newListener()
}

// SupportsListener returns true: the listener needs no connection.
func (postgresJobDriver) SupportsListener() bool { return true }

// SupportsListenNotify returns false, so that River writes no notifications.
func (postgresJobDriver) SupportsListenNotify() bool { return false }

// SupportsListenNotify returns false, so that River writes no notifications.
func (postgresInsertDriver) SupportsListenNotify() bool { return false }

package events

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

const (
	// pageSize is how many events are read at once. A page fits into the queue of a
	// reader that keeps up.
	pageSize = 250
	// maxQueuedEvents is how many events wait in one feed at most.
	maxQueuedEvents = 256
	// pollInterval is how long an event can go unseen when its wake-up was lost.
	pollInterval = time.Second
	// pollTimeout is how long the reader waits for the store: a connection to it can
	// die without a sign.
	pollTimeout = 10 * time.Second
	// stallThreshold is after which stop the reader looks whether it missed something; no
	// event is taken away in less than a day.
	stallThreshold = time.Hour
)

// Log is the log of a store. It is safe for concurrent use.
type Log struct {
	db       *database.DB
	logger   *slog.Logger
	wake     chan struct{}
	natsConn *nats.Conn // nil without NATS

	slowConsumers atomic.Int64
	onDispatch    atomic.Pointer[func(late time.Duration)]

	mu         sync.Mutex
	caughtUpAt time.Time // when the reader last got to the end; zero before it runs
	head       int64     // the last event that feeds were offered
	feeds      topicIndex
	feedCount  int // how many feeds there are
}

// Open returns the log of db. Follow must run for subscribers to hear anything.
func Open(ctx context.Context, db *database.DB, logger *slog.Logger) (*Log, error) {
	l := &Log{db: db, logger: logger, wake: make(chan struct{}, 1), feeds: topicIndex{}}
	if _, err := db.AssignCursors(ctx, true); err != nil {
		return nil, err
	}
	ends, err := l.cursorRange(ctx)
	if err != nil {
		return nil, err
	}
	l.head = ends.Last
	db.OnRemoteEvents(l.Wake)
	return l, nil
}

// Append writes an event with the transaction. Its id is noted by the next time
// that the transaction reads a row, or by its commit. Readers wake up after it.
func (l *Log) Append(tx *database.Tx, event *models.Event) error {
	tx.OnCommit(l.Wake)
	return tx.InsertReturning(insertEvent+" RETURNING id", insertArgs(event), &event.ID)
}

// AppendNoID is Append where nobody needs the event's id: then there is nothing to be
// lost with the answer to a commit.
func (l *Log) AppendNoID(tx *database.Tx, event models.Event) error {
	tx.OnCommit(l.Wake)
	return tx.ExecOne(insertEvent, insertArgs(&event)...)
}

const insertEvent = "INSERT INTO events (kind, task_id, poster_id, worker_id, agent_id, transfer_id, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)"

func insertArgs(e *models.Event) []any {
	return []any{e.Kind, e.TaskID, e.PosterID, e.WorkerID, e.AgentID, e.TransferID, e.CreatedAt}
}

// Wake has the reader look for new events now.
func (l *Log) Wake() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Head returns the cursor of the last event that was handed out.
func (l *Log) Head() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// Subscribers returns how many feeds and subscriptions are open.
func (l *Log) Subscribers() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.feedCount
}

// Follow reads the log and hands out what is new until ctx ends. One call
// serves the process.
func (l *Log) Follow(ctx context.Context) {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	l.markCaughtUp()
	for {
		if err := l.poll(ctx); err != nil && ctx.Err() == nil {
			l.logger.ErrorContext(ctx, "cannot read events", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case <-ticker.C:
		}
	}
}

// poll hands out what is new, and gives up when that takes long.
func (l *Log) poll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	if err := l.dispatch(ctx); err != nil {
		return err
	}
	l.markCaughtUp()
	return nil
}

func (l *Log) markCaughtUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.caughtUpAt = time.Now().Round(0) //nolint:forbidigo // it is about this process; by the wall, which goes on while a machine sleeps
}

// Lag is for how long Follow has not got to the end of the log; 0 before it
// runs.
func (l *Log) Lag() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.caughtUpAt.IsZero() {
		return 0
	}
	return time.Since(l.caughtUpAt) //nolint:forbidigo // as above
}

// dispatch reads pages until a short one and offers each event to the feeds that
// it concerns.
func (l *Log) dispatch(ctx context.Context) error {
	if err := l.numberEvents(ctx); err != nil {
		return err
	}
	if skipped, err := l.skipToEnd(ctx); skipped || err != nil {
		return err
	}
	if err := l.closeFeedsAfterStall(ctx); err != nil {
		return err
	}
	for {
		events, err := l.readPage(ctx, l.Head())
		if err != nil {
			return err
		}
		for i := range events {
			l.offer(&events[i])
		}
		l.reportLatency(events)
		if len(events) < pageSize {
			return nil
		}
	}
}

func (l *Log) offer(event *models.Event) {
	topics := topicsOf(event)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.head = event.Seq
	for _, topic := range topics {
		for feed := range l.feeds[topic] {
			feed.offer(event)
		}
	}
}

// skipToEnd goes to the end of the log when nobody listens. The lock is held
// meanwhile: who joins next hears everything after it.
func (l *Log) skipToEnd(ctx context.Context) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.feedCount > 0 {
		return false, nil
	}
	ends, err := l.cursorRange(ctx)
	if err == nil {
		l.head = ends.Last
	}
	return true, err
}

// closeFeedsAfterStall cuts off all who listen when the reader was stopped for so long that
// events which it has not seen may be gone: they come back with their cursors, and
// are told.
func (l *Log) closeFeedsAfterStall(ctx context.Context) error {
	if l.Lag() < stallThreshold {
		return nil
	}
	ends, err := l.cursorRange(ctx)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.head >= ends.Horizon {
		return nil
	}
	l.head = ends.Horizon
	for _, feeds := range l.feeds {
		for feed := range feeds {
			feed.closeAsSlow()
		}
	}
	return nil
}

// cursorRange are the cursors between which the log can be read: all that happened after
// Horizon, up to Last, is in it.
type cursorRange struct{ Horizon, Last int64 }

func (l *Log) cursorRange(ctx context.Context) (cursorRange, error) {
	var e cursorRange
	err := l.db.Read(ctx).Raw(`SELECT seq AS horizon, COALESCE((SELECT MAX(seq) FROM events), seq) AS last FROM event_horizon WHERE one = 1`).Scan(&e).Error
	return e, err
}

// checkCursor refuses a cursor past the end of the log. No event here carried it: who
// went on from it would silently miss what happens up to it. Neither can be gone
// on from one before the horizon: what followed it is not kept any more.
func (l *Log) checkCursor(ctx context.Context, cursor int64) error {
	e, err := l.cursorRange(ctx)
	switch {
	case err != nil:
		return err
	case cursor > e.Last:
		return unknownCursorError("after")
	case cursor < e.Horizon:
		return cursorExpiredError(e.Horizon)
	}
	return nil
}

// readPage returns a page of events after a cursor, with their tasks.
func (l *Log) readPage(ctx context.Context, after int64) ([]models.Event, error) {
	query := l.db.Read(ctx).Where("seq > ?", after).Order("seq").Limit(pageSize)
	var events []models.Event
	if err := query.Find(&events).Error; err != nil {
		return nil, err
	}
	return events, l.attachTasks(ctx, events)
}

// attachTasks gives the events of a page their tasks, with one query.
func (l *Log) attachTasks(ctx context.Context, events []models.Event) error {
	var ids []string
	for i := range events {
		if events[i].TaskID != nil {
			ids = append(ids, *events[i].TaskID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	var tasks []models.Task
	if err := l.db.Read(ctx).Find(&tasks, "id IN ?", ids).Error; err != nil {
		return err
	}
	byID := make(map[string]*models.Task, len(tasks))
	for i := range tasks {
		byID[tasks[i].ID] = &tasks[i]
	}
	for i := range events {
		if events[i].TaskID != nil {
			events[i].Task = byID[*events[i].TaskID]
		}
	}
	return nil
}

// Cursor writes an event's position for a client.
func Cursor(seq int64) string { return strconv.FormatInt(seq, 10) }

// ParseCursor reads what Cursor wrote. Anything else is INVALID_INPUT, another spelling
// of the same number too.
func ParseCursor(field, cursor string) (int64, error) {
	seq, err := strconv.ParseInt(cursor, 10, 64)
	if err != nil || seq < 0 || Cursor(seq) != cursor {
		return 0, unknownCursorError(field)
	}
	return seq, nil
}

func cursorExpiredError(horizon int64) error {
	refusal := models.Errorf(models.CursorExpired,
		"events up to %d are no longer kept: list what is open now, and subscribe without after", horizon)
	refusal.Field = "after"
	return refusal
}

func unknownCursorError(field string) error {
	return models.Invalid(field, "must be a cursor that an event carried")
}

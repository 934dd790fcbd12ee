package events

import (
	"context"
	"errors"
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
	// pageSize is the number of events read with one query. A page fits into the empty
	// queue of a feed.
	pageSize = 250
	// maxQueuedEvents is the maximum number of queued events of a feed.
	maxQueuedEvents = 256
	// pollInterval is the longest delay of an event whose wake-up was lost.
	pollInterval = time.Second
	// pollTimeout limits the queries of one poll. A connection can break without an
	// error.
	pollTimeout = 10 * time.Second
	// stallThreshold is how long Follow can stall before it checks for pruned events.
	// Events are kept for at least a day.
	stallThreshold = time.Hour
)

// Log is the event log of a database. It is safe for concurrent use.
type Log struct {
	db       *database.DB
	logger   *slog.Logger
	wake     chan struct{}
	natsConn *nats.Conn // nil without NATS

	slowConsumers atomic.Int64
	onDispatch    atomic.Pointer[func(latency time.Duration)]

	mu         sync.Mutex
	caughtUpAt time.Time // last time Follow reached the end of the log; zero before Follow runs
	head       int64     // cursor of the last dispatched event
	feeds      topicIndex
	feedCount  int // number of open feeds
}

// Open returns the log of db. Feeds deliver new events only while Follow runs.
func Open(ctx context.Context, db *database.DB, logger *slog.Logger) (*Log, error) {
	l := &Log{db: db, logger: logger, wake: make(chan struct{}, 1), feeds: topicIndex{}}
	if _, err := db.AssignCursors(ctx, true); err != nil {
		return nil, err
	}
	r, err := l.cursorRange(ctx)
	if err != nil {
		return nil, err
	}
	l.head = r.Last
	db.OnRemoteEvents(l.Wake)
	return l, nil
}

// Append writes an event with the transaction and wakes readers after the commit.
// event.ID is set by the next query of the transaction, or by its commit.
func (l *Log) Append(tx *database.Tx, event *models.Event) error {
	tx.OnCommit(l.Wake)
	return tx.InsertReturning(insertEvent+" RETURNING id", insertArgs(event), &event.ID)
}

// AppendNoID is Append for callers that do not need the event's ID. Without the ID, a
// transaction has no result that can be lost with the response to its commit.
func (l *Log) AppendNoID(tx *database.Tx, event models.Event) error {
	tx.OnCommit(l.Wake)
	return tx.ExecOne(insertEvent, insertArgs(&event)...)
}

const insertEvent = "INSERT INTO events (kind, task_id, poster_id, worker_id, agent_id, transfer_id, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)"

func insertArgs(e *models.Event) []any {
	return []any{e.Kind, e.TaskID, e.PosterID, e.WorkerID, e.AgentID, e.TransferID, e.CreatedAt}
}

// Wake makes Follow read the log now.
func (l *Log) Wake() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Head returns the cursor of the last dispatched event.
func (l *Log) Head() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// SlowConsumers returns the number of feeds closed with SLOW_CONSUMER.
func (l *Log) SlowConsumers() int64 { return l.slowConsumers.Load() }

// Subscribers returns the number of open feeds.
func (l *Log) Subscribers() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.feedCount
}

// Follow reads the log and dispatches new events to feeds until ctx is done. Call it
// once per process.
func (l *Log) Follow(ctx context.Context) {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	l.markCaughtUp()
	for {
		if err := l.poll(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, database.ErrFileLost) { // the store has logged that
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

// poll dispatches new events. It returns an error after pollTimeout.
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
	l.caughtUpAt = time.Now().Round(0) //nolint:forbidigo // wall clock of this process, which also counts while the machine sleeps
}

// Lag returns the time since Follow last reached the end of the log, or 0 before
// Follow runs.
func (l *Log) Lag() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.caughtUpAt.IsZero() {
		return 0
	}
	return time.Since(l.caughtUpAt) //nolint:forbidigo // as above
}

// dispatch reads all new events and offers each one to the feeds with its topics.
func (l *Log) dispatch(ctx context.Context) error {
	if err := l.assignCursors(ctx); err != nil {
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

// skipToEnd moves head to the end of the log if no feed is open. It holds the lock,
// so a feed opened later gets every later event.
func (l *Log) skipToEnd(ctx context.Context) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.feedCount > 0 {
		return false, nil
	}
	r, err := l.cursorRange(ctx)
	if err == nil {
		l.head = r.Last
	}
	return true, err
}

// closeFeedsAfterStall closes all feeds with SLOW_CONSUMER if Follow stalled and
// events were pruned before it read them. Subscribers that resume get
// CURSOR_EXPIRED.
func (l *Log) closeFeedsAfterStall(ctx context.Context) error {
	if l.Lag() < stallThreshold {
		return nil
	}
	r, err := l.cursorRange(ctx)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.head >= r.Horizon {
		return nil
	}
	l.head = r.Horizon
	for _, feeds := range l.feeds {
		for feed := range feeds {
			feed.closeAsSlow()
		}
	}
	return nil
}

// cursorRange is the range of the log. It holds every event after Horizon up to
// Last.
type cursorRange struct{ Horizon, Last int64 }

func (l *Log) cursorRange(ctx context.Context) (cursorRange, error) {
	var r cursorRange
	err := l.db.Read(ctx).Raw(`SELECT seq AS horizon, COALESCE((SELECT MAX(seq) FROM events), seq) AS last FROM event_horizon WHERE one = 1`).Scan(&r).Error
	return r, err
}

// checkCursor returns INVALID_INPUT for a cursor after the end of the log: a reader
// that resumed from it would miss events. It returns CURSOR_EXPIRED for a cursor
// before the horizon.
func (l *Log) checkCursor(ctx context.Context, cursor int64) error {
	r, err := l.cursorRange(ctx)
	switch {
	case err != nil:
		return err
	case cursor > r.Last:
		return unknownCursorError("after")
	case cursor < r.Horizon:
		return cursorExpiredError(r.Horizon)
	}
	return nil
}

// readPage returns up to pageSize events after a cursor, with their tasks.
func (l *Log) readPage(ctx context.Context, after int64) ([]models.Event, error) {
	query := l.db.Read(ctx).Where("seq > ?", after).Order("seq").Limit(pageSize)
	var events []models.Event
	if err := query.Find(&events).Error; err != nil {
		return nil, err
	}
	return events, l.attachTasks(ctx, events)
}

// attachTasks reads the tasks of events with one query.
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

// Cursor returns the text form of a cursor.
func Cursor(seq int64) string { return strconv.FormatInt(seq, 10) }

// ParseCursor parses the result of Cursor. It returns INVALID_INPUT for field if the
// text is anything else, including another form of the same number.
func ParseCursor(field, cursor string) (int64, error) {
	seq, err := strconv.ParseInt(cursor, 10, 64)
	if err != nil || seq < 0 || Cursor(seq) != cursor {
		return 0, unknownCursorError(field)
	}
	return seq, nil
}

func cursorExpiredError(horizon int64) error {
	err := models.Errorf(models.CursorExpired,
		"events up to %d are no longer kept: list the open tasks, and subscribe without after", horizon)
	err.Field = "after"
	return err
}

func unknownCursorError(field string) error {
	return models.FieldErrorf(field, "must be the cursor of an event")
}

// assignCursors assigns cursors to new events and wakes the other replicas, through
// NATS if it is connected and through the database otherwise.
func (l *Log) assignCursors(ctx context.Context) error {
	useNATS := l.natsConnected()
	assigned, err := l.db.AssignCursors(ctx, !useNATS)
	if err != nil || !assigned || !useNATS {
		return err
	}
	if err := l.natsConn.Publish(wakeSubject, nil); err != nil { // replicas also poll every second
		l.logger.WarnContext(ctx, "cannot wake other replicas through NATS", slog.Any("error", err))
	}
	return nil
}

package webhooks

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/tracing"
	"agentmarket.space/server/models"
)

// The queues. First tries start at once, however many retries are due: these have a
// queue and workers of their own, and so has what is sent to an endpoint that has
// failed since it last answered, that has kept requests waiting, or that has more
// waiting than it takes.
const (
	matchQueue   = "matches"
	firstQueue   = "deliveries"
	laterQueue   = "retries"
	matchWorkers = 4
	// firstWorkers is how many first tries are under way or wait for a slot at
	// most: 64 endpoints that begin to hang at once, with [perEndpoint] each, are
	// needed to hold up the others, and can do so for one time-out only, and again
	// after what they then owe is paid (see [payback]).
	firstWorkers = 256
	laterWorkers = 64
)

const (
	// fetchCooldown limits jobs a second to workers/cooldown. River's default of
	// 100 ms gave 500/s, 20 ms about 2 000.
	fetchCooldown = 20 * time.Millisecond
	// fetchPoll is how late a snoozed job may start.
	fetchPoll = 250 * time.Millisecond
	// jobGrace is what a job may take beside its request.
	jobGrace = 15 * time.Second
	// rescueAfter is when a job is given back that seems to run for ever.
	rescueAfter = 90 * time.Second
	// keepDone is how long a completed job is kept; deliveries are the record.
	keepDone = time.Minute
	// cancelGrace is how long Stop waits for what it has cancelled.
	cancelGrace = 5 * time.Second
)

// Options is what Webhooks need. All but Timeout, Retries and Wall must be given.
type Options struct {
	DB             *database.DB
	Events         *events.Log
	Client         *outbound.Client
	Box            *auth.Box // seals the signing secrets
	MarketplaceURL string    // sent as marketplace_url
	// Timeout is how long one try may take, 15 s when it is 0.
	Timeout time.Duration
	// Retries is how long to wait after each failed try; a delivery is tried
	// once more than it has entries. Nil means [DefaultRetries].
	Retries []time.Duration
	// Keep is how long a delivery is kept and can be sent again; 0 is for ever.
	Keep time.Duration
	Now  func() time.Time
	// Wall is the time that receivers go by, where Now can be moved on; nil where it is
	// the same.
	Wall   func() time.Time
	Logger *slog.Logger
	// Tried is told of every try of a delivery that was written down; it may be nil.
	Tried func(Try)
	// Tracer goes on with the traces of what is delivered; it may be nil.
	Tracer *tracing.Tracer
}

// Try is what came of a try of a delivery.
type Try struct {
	Outcome Outcome
	Took    time.Duration
	GaveUp  bool // it was the last
}

// Outcome is what came of a try, in a word.
type Outcome string

// A try was answered with a 2xx, with something else, or not at all.
const (
	Delivered  Outcome = "delivered"
	Refused    Outcome = "refused"
	Unanswered Outcome = "unanswered"
)

// Outcomes returns every outcome.
func Outcomes() []Outcome { return []Outcome{Delivered, Refused, Unanswered} }

const defaultTimeout = 15 * time.Second

// DefaultRetries returns the waits between tries, 27.6 hours in all.
func DefaultRetries() []time.Duration {
	return []time.Duration{
		5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 10 * time.Hour,
	}
}

// Webhooks keeps where agents are notified, and notifies them once started. It
// is safe for concurrent use.
type Webhooks struct {
	db             *database.DB
	log            *events.Log
	client         *outbound.Client
	box            *auth.Box
	marketplaceURL string
	timeout        time.Duration
	retries        []time.Duration
	keep           time.Duration
	now, wall      func() time.Time // what the market goes by, and what receivers do
	moved          bool             // now can be moved on
	random         func() float64   // in [0, 1), spreads retries
	poll           time.Duration
	logger         *slog.Logger
	tried          func(Try)
	tracer         *tracing.Tracer
	slots          slots
	anyone         atomic.Bool // some agent has had a webhook
	wanted, looked atomic.Bool // some agent has asked for events; it has been looked for one

	mu     sync.Mutex
	worker *river.Client[*sql.Tx] // nil unless started
}

// New returns the webhooks in a store. Nothing is sent before Start.
func New(o Options) *Webhooks {
	retries := o.Retries
	if retries == nil {
		retries = DefaultRetries()
	}
	wall, moved := o.Wall, o.Wall != nil
	if !moved {
		wall = o.Now
	}
	return &Webhooks{
		db:             o.DB,
		log:            o.Events,
		client:         o.Client,
		box:            o.Box,
		marketplaceURL: o.MarketplaceURL,
		timeout:        cmp.Or(o.Timeout, defaultTimeout),
		retries:        retries,
		keep:           o.Keep,
		now:            o.Now,
		wall:           wall,
		moved:          moved,
		random:         rand.Float64,
		poll:           fetchPoll,
		logger:         o.Logger,
		tried:          o.Tried,
		tracer:         o.Tracer,
		slots:          newSlots(o.Now),
	}
}

// tries is how often a delivery is tried.
func (w *Webhooks) tries() int { return len(w.retries) + 1 }

// Start begins to work the queues and returns. ctx is for starting only; Stop
// ends the work.
func (w *Webhooks) Start(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.worker != nil {
		return errors.New("start webhooks: already started")
	}
	config, err := w.config()
	if err != nil {
		return fmt.Errorf("start webhooks: %w", err)
	}
	worker, err := w.db.NewWorker(ctx, config)
	if err != nil {
		return fmt.Errorf("start webhooks: %w", err)
	}
	if err = worker.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("start webhooks: %w", err)
	}
	w.worker = worker
	return nil
}

// Stop takes no new work and waits for the tries under way until ctx ends; those
// that are left then are cancelled and made again after the next Start. It may
// be called without a Start.
func (w *Webhooks) Stop(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.worker == nil {
		return nil
	}
	if w.worker.Stop(ctx) != nil {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelGrace)
		defer cancel()
		if err := w.worker.StopAndCancel(after); err != nil {
			return fmt.Errorf("stop webhooks: %w", err)
		}
	}
	w.worker = nil
	return nil
}

func (w *Webhooks) config() (*river.Config, error) {
	workers := river.NewWorkers()
	err := errors.Join(
		river.AddWorkerSafely(workers, &matcher{webhooks: w}), river.AddWorkerSafely(workers, &partyMatcher{webhooks: w}),
		river.AddWorkerSafely(workers, &deliverer{webhooks: w}), river.AddWorkerSafely(workers, &teller{webhooks: w}),
	)
	if err != nil {
		return nil, err
	}
	config := &river.Config{
		Queues: map[string]river.QueueConfig{
			matchQueue: {MaxWorkers: matchWorkers},
			firstQueue: {MaxWorkers: firstWorkers},
			laterQueue: {MaxWorkers: laterWorkers},
		},
		Workers:                     workers,
		FetchCooldown:               fetchCooldown,
		FetchPollInterval:           w.poll,
		JobTimeout:                  w.timeout + jobGrace,
		RescueStuckJobsAfter:        max(rescueAfter, 2*(w.timeout+jobGrace)),
		CompletedJobRetentionPeriod: keepDone,
		RetryPolicy:                 internalRetry{now: w.now},
		ErrorHandler:                faults{logger: w.logger},
		Logger:                      slog.New(warnings{Handler: w.logger.Handler()}),
	}
	if w.moved {
		config.Test.Time = movedTime(w.now)
	}
	return config, nil
}

// movedTime has the job queue go by a clock that can be moved on.
type movedTime func() time.Time

// Now is the time that the clock shows.
func (t movedTime) Now() time.Time { return t() }

// NowOrNil is the same: the database's own clock is another.
func (t movedTime) NowOrNil() *time.Time { return new(t()) }

// maxInternalTries is how often a job is begun when the store fails: with a
// minute in between, about a week. Receivers' failures do not count here.
const maxInternalTries = 10_000

// internalRetry says when a job is begun again that failed on our side.
type internalRetry struct{ now func() time.Time }

// NextRetry waits a second longer after each failure, at most a minute.
func (r internalRetry) NextRetry(job *rivertype.JobRow) time.Time {
	return r.now().Add(min(time.Duration(len(job.Errors)+1)*time.Second, time.Minute))
}

// faults logs what fails on our side; it is tried again.
type faults struct{ logger *slog.Logger }

// HandleError logs an error of a job.
func (f faults) HandleError(ctx context.Context, job *rivertype.JobRow, err error) *river.ErrorHandlerResult {
	f.logger.ErrorContext(ctx, "webhook job failed", slog.String("kind", job.Kind), slog.Int64("job_id", job.ID), slog.Any("error", err))
	return nil
}

// HandlePanic logs a panic of a job.
func (f faults) HandlePanic(ctx context.Context, job *rivertype.JobRow, value any, trace string) *river.ErrorHandlerResult {
	f.logger.ErrorContext(ctx, "webhook job panicked", slog.String("kind", job.Kind), slog.Int64("job_id", job.ID),
		slog.Any("panic", value), slog.String("trace", trace))
	return nil
}

// warnings drops what a library logs below a warning.
type warnings struct{ slog.Handler }

// Enabled reports whether a level is logged.
func (h warnings) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && h.Handler.Enabled(ctx, level)
}

// WithAttrs returns the handler with attributes.
func (h warnings) WithAttrs(attrs []slog.Attr) slog.Handler {
	return warnings{Handler: h.Handler.WithAttrs(attrs)}
}

// WithGroup returns the handler with a group.
func (h warnings) WithGroup(name string) slog.Handler {
	return warnings{Handler: h.Handler.WithGroup(name)}
}

// tell appends an event about an agent's webhook.
func (w *Webhooks) tell(tx *database.Tx, kind models.EventKind, agentID string) error {
	return w.log.Tell(tx, models.Event{Kind: kind, AgentID: &agentID, CreatedAt: w.stamp()})
}

// stamp is the clock in the form that is stored.
func (w *Webhooks) stamp() models.Time { return models.At(w.now()) }

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
	matchQueue        = "matches"
	firstAttemptQueue = "deliveries"
	retryQueue        = "retries"
	maxMatchWorkers   = 4
	// maxFirstAttemptWorkers is how many first tries are under way or wait for a slot at
	// most: 64 endpoints that begin to hang at once, with [perEndpoint] each, are
	// needed to hold up the others, and can do so for one time-out only, and again
	// after what they then owe is paid (see [payback]).
	maxFirstAttemptWorkers = 256
	maxRetryWorkers        = 64
)

const (
	// fetchCooldown limits jobs a second to workers/cooldown. River's default of
	// 100 ms gave 500/s, 20 ms about 2 000.
	fetchCooldown = 20 * time.Millisecond
	// fetchPollInterval is how late a snoozed job may start.
	fetchPollInterval = 250 * time.Millisecond
	// jobGrace is what a job may take beside its request.
	jobGrace = 15 * time.Second
	// rescueAfter is when a job is given back that seems to run for ever.
	rescueAfter = 90 * time.Second
	// completedJobRetention is how long a completed job is kept; deliveries are the record.
	completedJobRetention = time.Minute
	// cancelGrace is how long Stop waits for what it has cancelled.
	cancelGrace = 5 * time.Second
)

// Options is what Webhooks need. All but Timeout, Retries and WallClock must be given.
type Options struct {
	DB             *database.DB
	Events         *events.Log
	Client         *outbound.Client
	Cipher         *auth.Cipher // seals the signing secrets
	MarketplaceURL string       // sent as marketplace_url
	// Timeout is how long one try may take, 15 s when it is 0.
	Timeout time.Duration
	// Retries is how long to wait after each failed try; a delivery is tried
	// once more than it has entries. Nil means [DefaultRetries].
	Retries []time.Duration
	// Retention is how long a delivery is kept and can be sent again; 0 is for ever.
	Retention time.Duration
	Now       func() time.Time
	// WallClock is the time that receivers go by, where Now can be moved on; nil where it is
	// the same.
	WallClock func() time.Time
	Logger    *slog.Logger
	// OnAttempt is told of every try of a delivery that was written down; it may be nil.
	OnAttempt func(AttemptReport)
	// Tracer goes on with the traces of what is delivered; it may be nil.
	Tracer *tracing.Tracer
}

// AttemptReport is what came of a try of a delivery.
type AttemptReport struct {
	Outcome  Outcome
	Duration time.Duration
	GaveUp   bool // it was the last
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
	db                                           *database.DB
	log                                          *events.Log
	client                                       *outbound.Client
	cipher                                       *auth.Cipher
	marketplaceURL                               string
	timeout                                      time.Duration
	retries                                      []time.Duration
	retention                                    time.Duration
	now, wallClock                               func() time.Time // what the market goes by, and what receivers do
	hasTestClock                                 bool             // now can be moved on
	random                                       func() float64   // in [0, 1), spreads retries
	pollInterval                                 time.Duration
	logger                                       *slog.Logger
	onAttempt                                    func(AttemptReport)
	tracer                                       *tracing.Tracer
	limiter                                      endpointLimiter
	hasWebhooks                                  atomic.Bool // some agent has had a webhook
	hasEventSubscribers, eventSubscribersChecked atomic.Bool // some agent has asked for events; it has been looked for one

	mu          sync.Mutex
	riverClient *river.Client[*sql.Tx] // nil unless started
}

// New returns the webhooks in a store. Nothing is sent before Start.
func New(o Options) *Webhooks {
	retries := o.Retries
	if retries == nil {
		retries = DefaultRetries()
	}
	wall, moved := o.WallClock, o.WallClock != nil
	if !moved {
		wall = o.Now
	}
	return &Webhooks{
		db:             o.DB,
		log:            o.Events,
		client:         o.Client,
		cipher:         o.Cipher,
		marketplaceURL: o.MarketplaceURL,
		timeout:        cmp.Or(o.Timeout, defaultTimeout),
		retries:        retries,
		retention:      o.Retention,
		now:            o.Now,
		wallClock:      wall,
		hasTestClock:   moved,
		random:         rand.Float64,
		pollInterval:   fetchPollInterval,
		logger:         o.Logger,
		onAttempt:      o.OnAttempt,
		tracer:         o.Tracer,
		limiter:        newEndpointLimiter(o.Now),
	}
}

// attemptLimit is how often a delivery is tried.
func (w *Webhooks) attemptLimit() int { return len(w.retries) + 1 }

// Start begins to work the queues and returns. ctx is for starting only; Stop
// ends the work.
func (w *Webhooks) Start(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.riverClient != nil {
		return errors.New("start webhooks: already started")
	}
	config, err := w.riverConfig()
	if err != nil {
		return fmt.Errorf("start webhooks: %w", err)
	}
	worker, err := w.db.NewJobClient(ctx, config)
	if err != nil {
		return fmt.Errorf("start webhooks: %w", err)
	}
	if err = worker.Start(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("start webhooks: %w", err)
	}
	w.riverClient = worker
	return nil
}

// Stop takes no new work and waits for the tries under way until ctx ends; those
// that are left then are cancelled and made again after the next Start. It may
// be called without a Start.
func (w *Webhooks) Stop(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.riverClient == nil {
		return nil
	}
	if w.riverClient.Stop(ctx) != nil {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelGrace)
		defer cancel()
		if err := w.riverClient.StopAndCancel(after); err != nil {
			return fmt.Errorf("stop webhooks: %w", err)
		}
	}
	w.riverClient = nil
	return nil
}

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
		Logger:                      slog.New(warnLogHandler{Handler: w.logger.Handler()}),
	}
	if w.hasTestClock {
		config.Test.Time = riverClock(w.now)
	}
	return config, nil
}

// riverClock has the job queue go by a clock that can be moved on.
type riverClock func() time.Time

// Now is the time that the clock shows.
func (t riverClock) Now() time.Time { return t() }

// NowOrNil is the same: the database's own clock is another.
func (t riverClock) NowOrNil() *time.Time { return new(t()) }

// maxJobAttempts is how often a job is begun when the store fails: with a
// minute in between, about a week. Receivers' failures do not count here.
const maxJobAttempts = 10_000

// jobRetryPolicy says when a job is begun again that failed on our side.
type jobRetryPolicy struct{ now func() time.Time }

// NextRetry waits a second longer after each failure, at most a minute.
func (r jobRetryPolicy) NextRetry(job *rivertype.JobRow) time.Time {
	return r.now().Add(min(time.Duration(len(job.Errors)+1)*time.Second, time.Minute))
}

// jobErrorHandler logs what fails on our side; it is tried again.
type jobErrorHandler struct{ logger *slog.Logger }

// HandleError logs an error of a job.
func (f jobErrorHandler) HandleError(ctx context.Context, job *rivertype.JobRow, err error) *river.ErrorHandlerResult {
	f.logger.ErrorContext(ctx, "webhook job failed", slog.String("kind", job.Kind), slog.Int64("job_id", job.ID), slog.Any("error", err))
	return nil
}

// HandlePanic logs a panic of a job.
func (f jobErrorHandler) HandlePanic(ctx context.Context, job *rivertype.JobRow, value any, trace string) *river.ErrorHandlerResult {
	f.logger.ErrorContext(ctx, "webhook job panicked", slog.String("kind", job.Kind), slog.Int64("job_id", job.ID),
		slog.Any("panic", value), slog.String("trace", trace))
	return nil
}

// warnLogHandler drops what a library logs below a warning.
type warnLogHandler struct{ slog.Handler }

// Enabled reports whether a level is logged.
func (h warnLogHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && h.Handler.Enabled(ctx, level)
}

// WithAttrs returns the handler with attributes.
func (h warnLogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return warnLogHandler{Handler: h.Handler.WithAttrs(attrs)}
}

// WithGroup returns the handler with a group.
func (h warnLogHandler) WithGroup(name string) slog.Handler {
	return warnLogHandler{Handler: h.Handler.WithGroup(name)}
}

// appendEvent appends an event about an agent's webhook.
func (w *Webhooks) appendEvent(tx *database.Tx, kind models.EventKind, agentID string) error {
	return w.log.AppendNoID(tx, models.Event{Kind: kind, AgentID: &agentID, CreatedAt: w.timestamp()})
}

// timestamp is the clock in the form that is stored.
func (w *Webhooks) timestamp() models.Time { return models.NewTime(w.now()) }

package webhooks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/tracing"
	"agentmarket.space/server/models"
)

// Options configures Webhooks. Fields are required unless their comment gives a
// default.
type Options struct {
	DB             *database.DB
	Events         *events.Log
	Client         *outbound.Client
	Cipher         *auth.Cipher // encrypts the signing secrets
	MarketplaceURL string       // sent as marketplace_url
	// Timeout limits one attempt. The default is 15 s.
	Timeout time.Duration
	// Retries is the delay after each failed attempt. A delivery has one attempt
	// more than Retries has entries. Nil means [DefaultRetries].
	Retries []time.Duration
	// Retention is how long a delivery is stored and can be redelivered; 0 means
	// no limit.
	Retention time.Duration
	Now       func() time.Time
	// WallClock is the real time, for timestamps that receivers check. Nil means
	// Now. Set it when tests or the sandbox can advance Now.
	WallClock func() time.Time
	Logger    *slog.Logger
	// OnAttempt is called after each recorded attempt; it may be nil.
	OnAttempt func(AttemptReport)
	// Tracer traces jobs and requests; it may be nil.
	Tracer *tracing.Tracer
}

// AttemptReport is the result of one delivery attempt, for metrics.
type AttemptReport struct {
	Outcome  Outcome
	Duration time.Duration
	GaveUp   bool // no retry follows
}

// Outcome classifies a delivery attempt.
type Outcome string

// The outcomes of an attempt: a 2xx response, another response, no response.
const (
	OutcomeDelivered  Outcome = "delivered"
	OutcomeRefused    Outcome = "refused"
	OutcomeUnanswered Outcome = "unanswered"
)

// Outcomes returns every outcome.
func Outcomes() []Outcome { return []Outcome{OutcomeDelivered, OutcomeRefused, OutcomeUnanswered} }

const defaultTimeout = 15 * time.Second

// DefaultRetries returns the default delays between attempts, 27.6 hours in
// total.
func DefaultRetries() []time.Duration {
	return []time.Duration{
		5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 10 * time.Hour,
	}
}

// Webhooks stores the webhooks of agents and delivers events to them once
// started. It is safe for concurrent use.
type Webhooks struct {
	db             *database.DB
	log            *events.Log
	client         *outbound.Client
	cipher         *auth.Cipher
	marketplaceURL string
	timeout        time.Duration
	retries        []time.Duration
	retention      time.Duration
	now, wallClock func() time.Time // the time of the market and the real time
	hasTestClock   bool             // now can be advanced
	random         func() float64   // in [0, 1), for jitter
	pollInterval   time.Duration
	logger         *slog.Logger
	onAttempt      func(AttemptReport)
	tracer         *tracing.Tracer
	limiter        endpointLimiter
	gate           *sendGate
	hasWebhooks    atomic.Bool // an agent has, or had, a webhook
	subscribers    subscriberCache

	mu   sync.Mutex
	jobs *database.JobRunner // nil unless started
}

// New returns Webhooks that use o.DB. Nothing is sent before Start.
func New(o Options) *Webhooks {
	retries := o.Retries
	if retries == nil {
		retries = DefaultRetries()
	}
	wallClock := o.WallClock
	if wallClock == nil {
		wallClock = o.Now
	}
	pollInterval := fetchPollInterval
	if o.WallClock != nil {
		pollInterval = testPollInterval
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
		wallClock:      wallClock,
		hasTestClock:   o.WallClock != nil,
		random:         rand.Float64,
		pollInterval:   pollInterval,
		logger:         o.Logger,
		onAttempt:      o.OnAttempt,
		tracer:         o.Tracer,
		limiter:        newEndpointLimiter(o.Now),
		gate:           newSendGate(),
	}
}

// attemptLimit returns the number of attempts of a delivery.
func (w *Webhooks) attemptLimit() int { return len(w.retries) + 1 }

// Start starts the job workers and returns. ctx applies to the start only; call
// Stop to end the work.
func (w *Webhooks) Start(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.jobs != nil {
		return errors.New("start webhooks: already started")
	}
	config, err := w.riverConfig()
	if err != nil {
		return fmt.Errorf("start webhooks: %w", err)
	}
	if w.jobs, err = w.db.NewJobRunner(ctx, config); err != nil {
		return fmt.Errorf("start webhooks: %w", err)
	}
	w.jobs.Start() //nolint:contextcheck // ends with Stop
	return nil
}

// Stop stops fetching jobs and waits for running attempts until ctx is done. It
// then cancels the remaining ones; they are repeated after the next Start. Stop
// does nothing before Start.
func (w *Webhooks) Stop(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.jobs == nil {
		return nil
	}
	if err := w.jobs.Stop(ctx); err != nil {
		return fmt.Errorf("stop webhooks: %w", err)
	}
	w.jobs = nil
	return nil
}

// appendEvent appends an event about an agent's webhook to the log.
func (w *Webhooks) appendEvent(tx *database.Tx, kind models.EventKind, agentID string) error {
	return w.log.AppendNoID(tx, models.Event{Kind: kind, AgentID: &agentID, CreatedAt: w.timestamp()})
}

// timestamp returns the current time in the form stored in the database.
func (w *Webhooks) timestamp() models.Time { return models.NewTime(w.now()) }

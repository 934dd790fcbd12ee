package webhooks

import (
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/test/services"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

const marketplaceURL = "https://agentmarket.space"

// bundle is Webhooks on an empty database.
type bundle struct {
	*Webhooks
	db      *database.DB
	clock   *clock
	snoozes int // seen by waitSnoozed
}

// clock is the real time plus offset, or a fixed time plus offset.
type clock struct {
	mu     sync.Mutex
	fixed  time.Time // zero for the real time
	offset time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.fixed.IsZero() {
		return c.fixed.Add(c.offset)
	}
	return time.Now().Add(c.offset)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += d
}

// settings are the options of a bundle; the zero value is valid.
type settings struct {
	retries       []time.Duration
	roots         *x509.CertPool
	allowNetworks []netip.Prefix
	clock         *clock
	timeout       time.Duration
	retention     time.Duration
}

// loopback allows requests to this machine.
func loopback() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }

// fastRetries returns a schedule of n retries within milliseconds.
func fastRetries(n int) []time.Duration {
	return slices.Repeat([]time.Duration{5 * time.Millisecond}, n)
}

func open(t *testing.T, s settings) *bundle {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	db, err := database.Open(t.Context(), services.NewDatabase(t), logger)
	testutil.Must(t, err)
	log, err := events.Open(t.Context(), db, logger)
	testutil.Must(t, err)
	cipher, err := auth.NewCipher([]byte("sixteen bytes or more"))
	testutil.Must(t, err)
	if s.clock == nil {
		s.clock = &clock{}
	}
	b := &bundle{db: db, clock: s.clock, Webhooks: New(Options{
		DB: db, Events: log, Client: newClient(s.roots, s.allowNetworks), Cipher: cipher, MarketplaceURL: marketplaceURL,
		Timeout: s.timeout, Retries: s.retries, Retention: s.retention, Now: s.clock.now, Logger: logger,
	})}
	b.pollInterval = 20 * time.Millisecond
	t.Cleanup(func() {
		testutil.Must(t, b.Stop(t.Context()))
		testutil.Must(t, db.Close())
	})
	return b
}

func newClient(roots *x509.CertPool, allow []netip.Prefix) *outbound.Client {
	return outbound.New(outbound.Options{RootCAs: roots, AllowNetworks: allow, UserAgent: "AgentMarket"})
}

// run starts the webhooks.
func (b *bundle) run(t *testing.T) {
	t.Helper()
	testutil.Must(t, b.Start(t.Context()))
}

// write runs fn in a transaction that must succeed.
func (b *bundle) write(t *testing.T, fn func(*database.Tx) error) {
	t.Helper()
	testutil.Must(t, b.db.Write(t.Context(), fn))
}

// addAgent adds an agent with capabilities and returns its id.
func (b *bundle) addAgent(t *testing.T, capabilities ...string) string {
	t.Helper()
	return b.addAgentWithID(t, uuid.Must(uuid.NewV7()).String(), capabilities...)
}

// addAgentWithID is addAgent with a given id.
func (b *bundle) addAgentWithID(t *testing.T, id string, capabilities ...string) string {
	t.Helper()
	b.write(t, func(tx *database.Tx) error {
		agent := models.Agent{ID: id, Name: "bot", Capabilities: append([]string{}, capabilities...), PricePerTask: 10, CreatedAt: 1}
		if err := tx.Create(&agent).Error; err != nil {
			return err
		}
		for _, capability := range capabilities {
			if err := tx.Create(&models.AgentCapability{Capability: capability, AgentID: id}).Error; err != nil {
				return err
			}
		}
		return nil
	})
	return id
}

// addSubscriber adds an agent with a webhook.
func (b *bundle) addSubscriber(t *testing.T, url string, capabilities ...string) (agentID, secret string) {
	t.Helper()
	agentID = b.addAgent(t, capabilities...)
	return agentID, b.subscribe(t, agentID, url)
}

func (b *bundle) subscribe(t *testing.T, agentID, url string) (secret string) {
	t.Helper()
	b.write(t, func(tx *database.Tx) (err error) {
		_, secret, err = b.Subscribe(tx, agentID, url, nil)
		return err
	})
	return secret
}

// post posts a task and notifies the webhooks.
func (b *bundle) post(t *testing.T, posterID string, capabilities ...string) models.Event {
	t.Helper()
	return b.postTask(t, models.Task{
		ID: uuid.Must(uuid.NewV7()).String(), PosterID: posterID, Title: "Summarize this paper", Description: "Full text...",
		Budget: 25, Capabilities: append([]string{}, capabilities...), CreatedAt: b.timestamp(),
	})
}

// matchEvent runs the match job of a task.posted event.
func (b *bundle) matchEvent(t *testing.T, event models.Event) {
	t.Helper()
	testutil.Must(t, b.runMatchJob(t, 1, MatchArgs{EventID: event.ID, TaskID: *event.TaskID, Event: models.WebhookTaskPosted}))
}

// runMatchJob runs a match job with an attempt number.
func (b *bundle) runMatchJob(t *testing.T, attempt int, args MatchArgs) error {
	t.Helper()
	return (&matchWorker{webhooks: b.Webhooks}).Work(t.Context(), &river.Job[MatchArgs]{JobRow: &rivertype.JobRow{Attempt: attempt}, Args: args})
}

func (b *bundle) postTask(t *testing.T, task models.Task) models.Event {
	t.Helper()
	task.Origin, task.Status, task.LeaseFor, task.OpenUntil = models.OriginMarketplace, models.Open, 1, task.CreatedAt+1
	event := models.Event{Kind: models.TaskPosted, TaskID: &task.ID, PosterID: &task.PosterID, CreatedAt: task.CreatedAt}
	b.write(t, func(tx *database.Tx) error {
		if err := tx.Create(&task).Error; err != nil {
			return err
		}
		err := tx.QueryRow("INSERT INTO events (kind, task_id, poster_id, created_at) VALUES (?, ?, ?, ?) RETURNING id",
			[]any{event.Kind, event.TaskID, event.PosterID, event.CreatedAt}, &event.ID)
		if err != nil {
			return err
		}
		return b.Notify(tx, &event)
	})
	return event
}

// deliveries returns the agent's deliveries, newest first.
func (b *bundle) deliveries(t *testing.T, agentID string) []models.Delivery {
	t.Helper()
	rows, err := b.Deliveries(t.Context(), agentID, nil, 1000, "")
	testutil.Must(t, err)
	return rows
}

// waitDeliveries waits until the agent has n deliveries in a state and returns them.
func (b *bundle) waitDeliveries(t *testing.T, agentID string, status models.DeliveryStatus, n int) []models.Delivery {
	t.Helper()
	var rows []models.Delivery
	testutil.Eventually(t, "deliveries to be "+string(status), func() bool {
		var err error
		rows, err = b.Deliveries(t.Context(), agentID, []models.DeliveryStatus{status}, 1000, "")
		testutil.Must(t, err)
		return len(rows) >= n
	})
	return rows
}

func (b *bundle) webhook(t *testing.T, agentID string) *models.Webhook {
	t.Helper()
	hook, err := b.Get(t.Context(), agentID)
	testutil.Must(t, err)
	return hook
}

func (b *bundle) attempts(t *testing.T, deliveryID string) []models.Attempt {
	t.Helper()
	attempts, err := b.Attempts(t.Context(), deliveryID)
	testutil.Must(t, err)
	return attempts
}

// newPendingDelivery returns a bundle with a delivery without attempts, and its
// agent.
func newPendingDelivery(t *testing.T) (b *bundle, worker string, d models.Delivery) {
	t.Helper()
	b = open(t, settings{})
	worker, _ = b.addSubscriber(t, "https://hooks.example.com/", "research")
	b.matchEvent(t, b.post(t, b.addAgent(t), "research"))
	return b, worker, b.deliveries(t, worker)[0]
}

// receivedRequest is a request that a receiver got.
type receivedRequest struct {
	header http.Header
	body   []byte
}

// receiver is a TLS endpoint that records its requests.
type receiver struct {
	*httptest.Server
	requests chan receivedRequest
}

// newReceiver starts a receiver. A nil respond returns status 200.
func newReceiver(t *testing.T, respond http.HandlerFunc) *receiver {
	t.Helper()
	r := &receiver{requests: make(chan receivedRequest, 1000)}
	r.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		r.requests <- receivedRequest{header: req.Header.Clone(), body: body}
		if respond != nil {
			respond(w, req)
		}
	}))
	t.Cleanup(r.Close)
	return r
}

// certPool returns a pool with the certificates of receivers.
func certPool(receivers ...*receiver) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, r := range receivers {
		pool.AddCert(r.Certificate())
	}
	return pool
}

func (r *receiver) next(t *testing.T) receivedRequest {
	t.Helper()
	return mustReceive(t, r.requests)
}

// mustReceive returns the next value of a channel.
func mustReceive[T any](t *testing.T, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(testutil.Timeout):
		t.Fatalf("timed out after %s waiting for a value", testutil.Timeout)
		panic("unreachable")
	}
}

func deref[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}

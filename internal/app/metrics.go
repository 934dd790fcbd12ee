package app

import (
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"agentmarket.space/server/graph"
	"agentmarket.space/server/graph/cache"
	"agentmarket.space/server/graph/operation"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/webhooks"
	"agentmarket.space/server/models"
)

// The values of the label "door": the APIs.
const (
	apiGraphQL = "graphql"
	apiREST    = "rest"
)

// The values of the label "kind": how agents run.
const (
	kindEndpoint = "endpoint"
	kindPrompt   = "prompt"
)

// metrics holds the Prometheus metrics of the server. Label values come from fixed
// sets, so that requests cannot create time series. Frequent series are looked up
// once, at the start.
type metrics struct {
	registry          *prometheus.Registry
	requests          *prometheus.HistogramVec
	commonRequests    map[requestSeries]prometheus.Observer // the most frequent series
	operations        map[operation.RootField]prometheus.Observer
	graphqlErrors     *prometheus.CounterVec // by code
	commits           struct{ changes, duration prometheus.Observer }
	commitFailures    prometheus.Counter
	eventLag          prometheus.Observer
	deliveryAttempts  map[webhooks.Outcome]prometheus.Observer
	deliveriesGivenUp prometheus.Counter
	executionsRunning map[string]prometheus.Gauge // by kind
	executions        *prometheus.HistogramVec    // by kind and outcome
	modelTokens       prometheus.Counter
	rateLimited       map[bool]prometheus.Counter // by whether the caller has an API key
	invalidKeys       prometheus.Counter
}

// requestSeries identifies a time series of requests.
type requestSeries struct {
	api, method string
	status      int
}

func newMetrics() *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.registerRequestMetrics()
	m.registerStoreMetrics()
	m.registerOutboundMetrics()
	return m
}

// registerRequestMetrics registers the metrics of requests.
func (m *metrics) registerRequestMetrics() {
	m.requests = m.histogram("http_request_duration_seconds", "Duration of HTTP requests.", requestBuckets(), "door", "method", "status")
	m.commonRequests = map[requestSeries]prometheus.Observer{}
	for _, s := range []requestSeries{
		{apiGraphQL, http.MethodPost, http.StatusOK},
		{apiGraphQL, http.MethodGet, http.StatusOK},
		{apiREST, http.MethodGet, http.StatusOK},
		{apiREST, http.MethodPost, http.StatusOK},
	} {
		m.commonRequests[s] = m.requests.WithLabelValues(s.api, s.method, strconv.Itoa(s.status))
	}
	operations := m.histogram("graphql_operation_duration_seconds",
		"Duration of GraphQL operations, including cached responses; for subscriptions the time until they start.", requestBuckets(), "kind", "field")
	m.operations = map[operation.RootField]prometheus.Observer{}
	for _, root := range graph.RootFields() {
		m.operations[root] = operations.WithLabelValues(root.Kind, root.Name)
	}
	m.graphqlErrors = m.counter("graphql_errors_total", "Errors in GraphQL responses, by code.", "code")
	limited := m.counter("rate_limited_total", "Requests rejected by the rate limit.", "caller")
	m.rateLimited = map[bool]prometheus.Counter{true: limited.WithLabelValues("agent"), false: limited.WithLabelValues("stranger")}
	m.invalidKeys = m.counter("keys_refused_total", "Requests with an unknown or revoked API key.").WithLabelValues()
}

// registerStoreMetrics registers the metrics of commits and events.
func (m *metrics) registerStoreMetrics() {
	m.commits.changes = m.histogram("commit_changes", "Number of changes in a group commit.", []float64{1, 2, 4, 8, 16, 32, 64, 128}).WithLabelValues()
	m.commits.duration = m.histogram("commit_duration_seconds", "Duration of COMMIT.", fastBuckets()).WithLabelValues()
	m.commitFailures = m.counter("commits_failed_total", "Commits that failed or whose outcome is unknown.").WithLabelValues()
	m.eventLag = m.histogram("event_lag_seconds", "Time from the commit of an event to its delivery to subscribers.", fastBuckets()).WithLabelValues()
}

// registerOutboundMetrics registers the metrics of webhooks and executions.
func (m *metrics) registerOutboundMetrics() {
	attempts := m.histogram("delivery_attempt_duration_seconds", "Duration of webhook delivery attempts.", callBuckets(), "outcome")
	m.deliveryAttempts = make(map[webhooks.Outcome]prometheus.Observer)
	for _, outcome := range webhooks.Outcomes() {
		m.deliveryAttempts[outcome] = attempts.WithLabelValues(string(outcome))
	}
	m.deliveriesGivenUp = m.counter("deliveries_given_up_total", "Webhook deliveries whose last attempt failed.").WithLabelValues()
	running := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: "executions_running", Help: "Hired agents that are running."}, []string{"kind"})
	m.registry.MustRegister(running)
	m.executionsRunning = map[string]prometheus.Gauge{}
	for _, kind := range []string{kindEndpoint, kindPrompt} {
		m.executionsRunning[kind] = running.WithLabelValues(kind)
	}
	m.executions = m.histogram("execution_duration_seconds", "Duration of executions, including the time in the queue.", callBuckets(), "kind", "outcome")
	m.modelTokens = m.counter("model_tokens_total", "Model tokens used by hires.").WithLabelValues()
}

const namespace = "agentmarket"

// The bucket bounds of histograms, in seconds: for requests, which take up to the
// endpoint timeout of a hire; for internal steps, which take milliseconds; and for
// calls to agents.
func requestBuckets() []float64 {
	return []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60}
}

func fastBuckets() []float64 {
	return []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10}
}

func callBuckets() []float64 {
	return []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 15, 60, 600}
}

func (m *metrics) histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	vec := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}, labels)
	m.registry.MustRegister(vec)
	return vec
}

func (m *metrics) counter(name, help string, labels ...string) *prometheus.CounterVec {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	m.registry.MustRegister(vec)
	return vec
}

// registerCollectors registers the metrics that are read from components at scrape
// time.
func (m *metrics) registerCollectors(a *App, responses *cache.Cache, version string) {
	build := prometheus.Labels{"version": version, "go": runtime.Version(), "engine": engineName(a.db)}
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: "build_info", Help: "Always 1, with the build as labels.", ConstLabels: build}, func() float64 { return 1 }),
		newGaugeFunc("connections", "Open WebSockets and event streams.", a.graph.Connections),
		newGaugeFunc("subscriptions", "Active event subscriptions.", a.events.Subscribers),
		newGaugeFunc("event_cursor", "Cursor of the last event delivered to subscribers.", a.events.Head),
		newGaugeFunc("events_behind_seconds", "Time since the event reader last reached the end of the log.", func() float64 { return a.events.Lag().Seconds() }),
		newGaugeFunc("changes_waiting", "Changes in the write queue of SQLite.", a.db.QueuedWrites),
		newGaugeFunc("database_connections_in_use", "Database connections in use; on SQLite only read connections.", func() int { n, _ := a.db.Connections(); return n }),
		newGaugeFunc("database_connections_max", "Maximum number of database connections.", func() int { _, n := a.db.Connections(); return n }),
		newCounterFunc("connections_cut_off_total", "WebSockets and event streams closed because the client did not read.", nil, a.graph.ConnectionsCutOff),
		newCounterFunc("slow_consumers_total", "Subscriptions closed because the subscriber fell behind.", nil, a.events.SlowConsumers),
		newCounterFunc("answers_total", "Responses to reads, including balances, by source.", prometheus.Labels{"from": "memory"}, func() int64 { n, _ := responses.Counts(); return n }),
		newCounterFunc("answers_total", "Responses to reads, including balances, by source.", prometheus.Labels{"from": "executed"}, func() int64 { _, n := responses.Counts(); return n }),
		newStatsCollector(a.db, time.Now),
	)
}

// engineName returns the name of the database engine.
func engineName(db *database.DB) string {
	if db.IsShared() {
		return "postgres"
	}
	return "sqlite"
}

func newGaugeFunc[N int | int64 | float64](name, help string, read func() N) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, func() float64 { return float64(read()) })
}

func newCounterFunc(name, help string, labels prometheus.Labels, read func() int64) prometheus.Collector {
	opts := prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help, ConstLabels: labels}
	return prometheus.NewCounterFunc(opts, func() float64 { return float64(read()) })
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// observeRequest records a request. Paths are reduced to the API, to bound the number
// of series.
func (m *metrics) observeRequest(r *http.Request, status int, duration time.Duration) {
	api := apiOf(r)
	observer, ok := m.commonRequests[requestSeries{api, r.Method, status}]
	if !ok {
		observer = m.requests.WithLabelValues(api, methodLabel(r.Method), strconv.Itoa(status))
	}
	observer.Observe(duration.Seconds())
}

// apiOf returns the API that a request addresses.
func apiOf(r *http.Request) string {
	switch path := r.URL.Path; {
	case path == "/graphql":
		return apiGraphQL
	case strings.HasPrefix(path, "/api/"):
		return apiREST
	default:
		return "other"
	}
}

func methodLabel(name string) string {
	switch name {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions:
		return name
	default:
		return "other"
	}
}

// ObserveOperation records a GraphQL operation.
func (m *metrics) ObserveOperation(root operation.RootField, duration time.Duration) {
	if observer, ok := m.operations[root]; ok {
		observer.Observe(duration.Seconds())
	}
}

// CountError counts a GraphQL error.
func (m *metrics) CountError(code models.Code) { m.graphqlErrors.WithLabelValues(string(code)).Inc() }

// observeCommit records a commit.
func (m *metrics) observeCommit(c database.CommitStats) {
	if c.Err != nil {
		m.commitFailures.Inc()
		return
	}
	m.commits.changes.Observe(float64(c.Changes))
	m.commits.duration.Observe(c.Duration.Seconds())
}

// observeAttempt records a webhook delivery attempt.
func (m *metrics) observeAttempt(t webhooks.AttemptReport) {
	m.deliveryAttempts[t.Outcome].Observe(t.Duration.Seconds())
	if t.GaveUp {
		m.deliveriesGivenUp.Inc()
	}
}

// observeExecution records the execution of a hired agent.
func (m *metrics) observeExecution(kind string, outcome market.RunResult, err error, duration time.Duration) {
	m.executions.WithLabelValues(kind, executionOutcome(outcome, err)).Observe(duration.Seconds())
	if outcome.Tokens != nil && *outcome.Tokens > 0 { // a gateway may report zero or less
		m.modelTokens.Add(float64(*outcome.Tokens))
	}
}

// executionKind returns the value of the label "kind" for an agent.
func executionKind(agent *models.Agent) string {
	if agent.ExecutionMode() == models.ModePrompt {
		return kindPrompt
	}
	return kindEndpoint
}

// executionOutcome returns the value of the label "outcome" for an execution.
func executionOutcome(outcome market.RunResult, err error) string {
	switch {
	case err == nil && outcome.Promised:
		return "promised"
	case err == nil && outcome.Result != "": // empty after a panic or for an empty result
		return "done"
	case models.CodeOf(err) == models.ExecutionTimeout:
		return "too_slow"
	default:
		return "failed"
	}
}

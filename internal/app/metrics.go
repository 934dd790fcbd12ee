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
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/webhooks"
	"agentmarket.space/server/models"
)

// Doors, as metrics name them.
const (
	apiGraphQL = "graphql"
	apiREST    = "rest"
)

// How agents run, as metrics name it.
const (
	kindEndpoint = "endpoint"
	kindPrompt   = "prompt"
)

// metrics are what an operator watches. Labels have values of ours alone: what a
// stranger sends must not make a new time series. What is counted on the way of a
// request is looked up once, when the server is made.
type metrics struct {
	registry          *prometheus.Registry
	requests          *prometheus.HistogramVec
	commonRequests    map[requestSeries]prometheus.Observer // what most requests are
	operations        map[graph.RootField]prometheus.Observer
	graphqlErrors     *prometheus.CounterVec // by code
	commits           struct{ changes, took prometheus.Observer }
	commitFailures    prometheus.Counter // commits
	eventLag          prometheus.Observer
	deliveryAttempts  map[webhooks.Outcome]prometheus.Observer
	deliveriesGivenUp prometheus.Counter
	executionsRunning map[string]prometheus.Gauge // by kind
	executions        *prometheus.HistogramVec    // by kind and outcome
	modelTokens       prometheus.Counter
	rateLimited       map[bool]prometheus.Counter // by whether the caller has a key
	invalidKeys       prometheus.Counter
}

// requestSeries is a time series of requests.
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

// registerRequestMetrics makes the metrics of what clients ask.
func (m *metrics) registerRequestMetrics() {
	m.requests = m.histogram("http_request_duration_seconds", "Time to answer HTTP requests.", requestBuckets(), "door", "method", "status")
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
		"Time to answer GraphQL operations, from memory too, or to begin them when they are subscriptions.", requestBuckets(), "kind", "field")
	m.operations = map[graph.RootField]prometheus.Observer{}
	for _, root := range graph.RootFields() {
		m.operations[root] = operations.WithLabelValues(root.Kind, root.Name)
	}
	m.graphqlErrors = m.counter("graphql_errors_total", "Errors in answers of GraphQL, by their code.", "code")
	limited := m.counter("rate_limited_total", "Requests refused for coming too fast.", "caller")
	m.rateLimited = map[bool]prometheus.Counter{true: limited.WithLabelValues("agent"), false: limited.WithLabelValues("stranger")}
	m.invalidKeys = m.counter("keys_refused_total", "Requests with an API key that is not known or was revoked.").WithLabelValues()
}

// registerStoreMetrics makes the metrics of what is written and told.
func (m *metrics) registerStoreMetrics() {
	m.commits.changes = m.histogram("commit_changes", "Changes that shared a commit.", []float64{1, 2, 4, 8, 16, 32, 64, 128}).WithLabelValues()
	m.commits.took = m.histogram("commit_duration_seconds", "Time from COMMIT to its answer.", fastBuckets()).WithLabelValues()
	m.commitFailures = m.counter("commits_failed_total", "Commits that failed, or of which it is not known.").WithLabelValues()
	m.eventLag = m.histogram("event_lag_seconds", "Time from an event to its being handed to those who listen.", fastBuckets()).WithLabelValues()
}

// registerOutboundMetrics makes the metrics of what is sent to agents.
func (m *metrics) registerOutboundMetrics() {
	tries := m.histogram("delivery_attempt_duration_seconds", "Time that attempts of webhook deliveries took.", callBuckets(), "outcome")
	m.deliveryAttempts = make(map[webhooks.Outcome]prometheus.Observer)
	for _, outcome := range webhooks.Outcomes() {
		m.deliveryAttempts[outcome] = tries.WithLabelValues(string(outcome))
	}
	m.deliveriesGivenUp = m.counter("deliveries_given_up_total", "Webhook deliveries of which the last attempt failed.").WithLabelValues()
	running := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: "executions_running", Help: "Hired agents that run now."}, []string{"kind"})
	m.registry.MustRegister(running)
	m.executionsRunning = map[string]prometheus.Gauge{}
	for _, kind := range []string{kindEndpoint, kindPrompt} {
		m.executionsRunning[kind] = running.WithLabelValues(kind)
	}
	m.executions = m.histogram("execution_duration_seconds", "Time that hired agents ran, their turn included.", callBuckets(), "kind", "outcome")
	m.modelTokens = m.counter("model_tokens_total", "Tokens that hires took of the operator's model.").WithLabelValues()
}

const namespace = "agentmarket"

// Bounds of histograms, in seconds: of requests, which go up to the minute that a hire is
// waited for, of what should take milliseconds, and of calls to strangers.
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

// registerCollectors has the metrics of a server's parts read when they are asked for.
func (m *metrics) registerCollectors(a *App, answers *graph.Cache, version string) {
	build := prometheus.Labels{"version": version, "go": runtime.Version(), "engine": engineName(a.db)}
	m.registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: "build_info", Help: "1, with what was built.", ConstLabels: build}, func() float64 { return 1 }),
		newGaugeFunc("connections", "Sockets and event streams that are open.", a.graph.Connections),
		newGaugeFunc("subscriptions", "Live subscriptions to events.", a.events.Subscribers),
		newGaugeFunc("event_cursor", "Cursor of the last event handed out.", a.events.Head),
		newGaugeFunc("events_behind_seconds", "For how long the reader of events has not reached their end.", func() float64 { return a.events.Lag().Seconds() }),
		newGaugeFunc("changes_waiting", "Changes that wait for the writer of SQLite.", a.db.QueuedWrites),
		newGaugeFunc("database_connections_in_use", "Connections to the store that are in use; on SQLite those that read.", func() int { n, _ := a.db.Connections(); return n }),
		newGaugeFunc("database_connections_max", "Connections to the store that there may be.", func() int { _, n := a.db.Connections(); return n }),
		newCounterFunc("connections_cut_off_total", "Sockets and event streams ended because their clients did not read.", nil, a.graph.ConnectionsCutOff),
		newCounterFunc("slow_consumers_total", "Subscriptions ended because their readers fell behind.", nil, a.events.SlowConsumers),
		newCounterFunc("answers_total", "Reads answered, balances beside them too.", prometheus.Labels{"from": "memory"}, func() int64 { n, _ := answers.Counts(); return n }),
		newCounterFunc("answers_total", "Reads answered, balances beside them too.", prometheus.Labels{"from": "executed"}, func() int64 { _, n := answers.Counts(); return n }),
		newStatsCollector(a.db, time.Now),
	)
}

// engineName is what the store runs on.
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

// observeRequest counts one request. Paths are folded to doors.
func (m *metrics) observeRequest(r *http.Request, status int, took time.Duration) {
	door := apiOf(r)
	observer, ok := m.commonRequests[requestSeries{door, r.Method, status}]
	if !ok {
		observer = m.requests.WithLabelValues(door, methodLabel(r.Method), strconv.Itoa(status))
	}
	observer.Observe(took.Seconds())
}

// apiOf is at which door a request came.
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

// ObserveOperation counts an operation of GraphQL.
func (m *metrics) ObserveOperation(root graph.RootField, took time.Duration) {
	if observer, ok := m.operations[root]; ok {
		observer.Observe(took.Seconds())
	}
}

// CountError counts an error of GraphQL.
func (m *metrics) CountError(code models.Code) { m.graphqlErrors.WithLabelValues(string(code)).Inc() }

// observeCommit counts a commit.
func (m *metrics) observeCommit(c database.CommitStats) {
	if c.Err != nil {
		m.commitFailures.Inc()
		return
	}
	m.commits.changes.Observe(float64(c.Changes))
	m.commits.took.Observe(c.Duration.Seconds())
}

// observeAttempt counts an attempt of a delivery.
func (m *metrics) observeAttempt(t webhooks.AttemptReport) {
	m.deliveryAttempts[t.Outcome].Observe(t.Duration.Seconds())
	if t.GaveUp {
		m.deliveriesGivenUp.Inc()
	}
}

// observeExecution counts a run of a hired agent.
func (m *metrics) observeExecution(kind string, outcome market.RunResult, err error, took time.Duration) {
	m.executions.WithLabelValues(kind, executionOutcome(outcome, err)).Observe(took.Seconds())
	if outcome.Tokens != nil && *outcome.Tokens > 0 { // a gateway may count oddly
		m.modelTokens.Add(float64(*outcome.Tokens))
	}
}

// executionKind is how an agent runs.
func executionKind(agent *models.Agent) string {
	if agent.ExecutionMode() == models.ModePrompt {
		return kindPrompt
	}
	return kindEndpoint
}

// executionOutcome is what a run came to, in a word.
func executionOutcome(outcome market.RunResult, err error) string {
	switch {
	case err == nil && outcome.Promised:
		return "promised"
	case err == nil && outcome.Result != "": // else it panicked, or gave nothing
		return "done"
	case models.CodeOf(err) == models.ExecutionTimeout:
		return "too_slow"
	default:
		return "failed"
	}
}

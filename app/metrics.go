package app

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"agentmarket.space/server/database"
	"agentmarket.space/server/ledger"
)

// scrapeTime is how long a figure may take to be read from the store.
const scrapeTime = 5 * time.Second

// Doors, as metrics name them.
const (
	doorGraphQL = "graphql"
	doorREST    = "rest"
)

// metrics are what an operator watches.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.HistogramVec
	usual    map[series]prometheus.Observer // what most requests are, looked up
}

// series is a time series of requests.
type series struct {
	door, method string
	status       int
}

func newMetrics(a *App) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "agentmarket_http_request_duration_seconds", Help: "Time to answer HTTP requests.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60},
		}, []string{"door", "method", "status"}),
	}
	m.usual = map[series]prometheus.Observer{}
	for _, s := range []series{
		{doorGraphQL, http.MethodPost, http.StatusOK},
		{doorGraphQL, http.MethodGet, http.StatusOK},
		{doorREST, http.MethodGet, http.StatusOK},
		{doorREST, http.MethodPost, http.StatusOK},
	} {
		m.usual[s] = m.requests.WithLabelValues(s.door, s.method, strconv.Itoa(s.status))
	}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), m.requests,
		gauge("agentmarket_subscriptions", "Live subscriptions to events.", func() float64 { return float64(a.events.Subscribers()) }),
		gauge("agentmarket_event_cursor", "Cursor of the last event handed out.", func() float64 { return float64(a.events.Head()) }),
		a.figure("agentmarket_credits_issued", "Credits granted so far.", func(db *database.State) (float64, error) {
			issued, _, err := ledger.Totals(db)
			return float64(issued), err
		}),
		a.figure("agentmarket_credits_fees", "Credits the platform earned.", func(db *database.State) (float64, error) {
			_, fees, err := ledger.Totals(db)
			return float64(fees), err
		}),
		a.count("agentmarket_tasks_under_way", "Tasks that are open or assigned.",
			"(SELECT COUNT(*) FROM tasks WHERE status = 'open') + (SELECT COUNT(*) FROM tasks WHERE status = 'assigned')"),
		a.count("agentmarket_deliveries_pending", "Webhook deliveries that wait for an attempt.",
			"(SELECT COUNT(*) FROM deliveries WHERE status = 'pending')"),
		a.count("agentmarket_webhooks_suspended", "Webhooks that are suspended.",
			"(SELECT COUNT(*) FROM webhooks WHERE status = 'suspended')"),
	)
	return m
}

func gauge(name, help string, read func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read)
}

// figure is a gauge whose figure is read from the store; -1 when it cannot be.
func (a *App) figure(name, help string, read func(*database.State) (float64, error)) prometheus.Collector {
	return gauge(name, help, func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), scrapeTime) //nolint:forbidigo // a collector is given no context
		defer cancel()
		n, err := read(a.db.Read(ctx))
		if err != nil {
			return -1
		}
		return n
	})
}

// count is a figure that is counted: of what is under way, never of all that was.
func (a *App) count(name, help, what string) prometheus.Collector {
	return a.figure(name, help, func(db *database.State) (n float64, err error) {
		err = db.Raw("SELECT " + what).Scan(&n).Error
		return n, err
	})
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// seen counts one request. Paths are folded to doors: what a stranger sends
// must not make a new time series.
func (m *metrics) seen(r *http.Request, status int, took time.Duration) {
	door := "other"
	switch path := r.URL.Path; {
	case path == "/graphql":
		door = doorGraphQL
	case strings.HasPrefix(path, "/api/"):
		door = doorREST
	}
	observer, ok := m.usual[series{door, r.Method, status}]
	if !ok {
		observer = m.requests.WithLabelValues(door, method(r.Method), strconv.Itoa(status))
	}
	observer.Observe(took.Seconds())
}

func method(name string) string {
	switch name {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions:
		return name
	default:
		return "other"
	}
}

package app

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/ledger"
)

const (
	// scrapeTimeout bounds the queries of a scrape.
	scrapeTimeout = 5 * time.Second
	// countsMaxAge and balancesMaxAge are the lifetimes of cached stats, so that frequent
	// scrapes do not load the database. Prometheus scrapes every 15 s to 60 s. Balances
	// live longer because their query sums up all wallets.
	countsMaxAge   = 10 * time.Second
	balancesMaxAge = time.Minute
)

// statsCollector collects metrics from the database. It omits metrics that it cannot
// read.
type statsCollector struct {
	db          *database.DB
	now         func() time.Time
	baseContext context.Context //nolint:containedctx // Collect has no context

	readable, issued, fees, wallets, escrow, ledgerDrift, activeTasks, pendingDeliveries, suspendedWebhooks, jobs, oldestJob *prometheus.Desc

	mu                           sync.Mutex
	countsReadAt, balancesReadAt time.Time
	countMetrics                 []prometheus.Metric
	balanceMetrics               []prometheus.Metric
}

func newStatsCollector(db *database.DB, now func() time.Time) *statsCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(namespace+"_"+name, help, labels, nil)
	}
	return &statsCollector{
		db: db, now: now, baseContext: context.Background(), //nolint:forbidigo // as above
		readable:          desc("figures_readable", "1 if the stats could be read from the database."),
		issued:            desc("credits_issued", "Total credits granted."),
		fees:              desc("credits_fees", "Total platform fees, in credits."),
		wallets:           desc("credits_in_wallets", "Credits in wallets.", "part"),
		escrow:            desc("credits_in_escrow", "Credits held in escrow for tasks and hires."),
		ledgerDrift:       desc("ledger_drift_credits", "Issued credits minus wallets, escrow and fees. Any value other than 0 is a ledger error."),
		activeTasks:       desc("tasks_under_way", "Tasks that are open or assigned."),
		pendingDeliveries: desc("deliveries_pending", "Webhook deliveries waiting for an attempt."),
		suspendedWebhooks: desc("webhooks_suspended", "Suspended webhooks."),
		jobs:              desc("jobs", "Unfinished jobs.", "queue", "state"),
		oldestJob:         desc("jobs_oldest_seconds", "Time since the oldest waiting job became due.", "queue"),
	}
}

// Describe implements prometheus.Collector.
func (f *statsCollector) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		f.readable, f.issued, f.fees, f.wallets, f.escrow, f.ledgerDrift, f.activeTasks, f.pendingDeliveries, f.suspendedWebhooks, f.jobs, f.oldestJob,
	} {
		out <- desc
	}
}

// Collect implements prometheus.Collector. It queries the database if the cached
// stats have expired.
func (f *statsCollector) Collect(out chan<- prometheus.Metric) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ctx, cancel := context.WithTimeout(f.baseContext, scrapeTimeout)
	defer cancel()
	readable := 1.0
	for _, part := range []struct {
		readAt  *time.Time
		maxAge  time.Duration
		metrics *[]prometheus.Metric
		query   func(*database.Snapshot) ([]prometheus.Metric, error)
	}{
		{&f.countsReadAt, countsMaxAge, &f.countMetrics, f.readCounts},
		{&f.balancesReadAt, balancesMaxAge, &f.balanceMetrics, f.readBalances},
	} {
		if now := f.now(); part.readAt.IsZero() || now.Sub(*part.readAt) >= part.maxAge {
			err := f.db.Snapshot(ctx, func(state *database.Snapshot) (err error) {
				*part.metrics, err = part.query(state)
				return err
			})
			if *part.readAt = now; err != nil { // retry after countsMaxAge
				*part.readAt, *part.metrics = now.Add(countsMaxAge-part.maxAge), nil
			}
		}
		if *part.metrics == nil {
			readable = 0
		}
		for _, metric := range *part.metrics {
			out <- metric
		}
	}
	out <- constGauge(f.readable, readable)
}

func constGauge[N int64 | float64](desc *prometheus.Desc, value N, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value), labels...)
}

// readCounts counts active tasks, pending deliveries, suspended webhooks and jobs. No
// query reads finished rows.
func (f *statsCollector) readCounts(state *database.Snapshot) ([]prometheus.Metric, error) {
	var n struct{ Tasks, Deliveries, Suspended int64 }
	err := state.Raw(`SELECT (SELECT COUNT(*) FROM tasks WHERE status = 'open') + (SELECT COUNT(*) FROM tasks WHERE status = 'assigned') AS tasks,
		(SELECT COUNT(*) FROM deliveries WHERE status = 'pending') AS deliveries,
		(SELECT COUNT(*) FROM webhooks WHERE status = 'suspended') AS suspended`).Scan(&n).Error
	if err != nil {
		return nil, err
	}
	queues, err := database.ReadQueueStats(state)
	if err != nil {
		return nil, err
	}
	counts := []prometheus.Metric{constGauge(f.activeTasks, n.Tasks), constGauge(f.pendingDeliveries, n.Deliveries), constGauge(f.suspendedWebhooks, n.Suspended)}
	lag := map[string]float64{}
	for _, q := range queues {
		counts = append(counts, constGauge(f.jobs, q.Jobs, q.Queue, string(q.State)))
		lag[q.Queue] = max(lag[q.Queue], q.Lag.Seconds())
	}
	for queue, seconds := range lag {
		counts = append(counts, constGauge(f.oldestJob, seconds, queue))
	}
	return counts, nil
}

// readBalances reads the balance sheet of the ledger.
func (f *statsCollector) readBalances(state *database.Snapshot) ([]prometheus.Metric, error) {
	b, err := ledger.ReadBalanceSheet(state)
	if err != nil {
		return nil, err
	}
	return []prometheus.Metric{
		constGauge(f.issued, int64(b.Issued)), constGauge(f.fees, int64(b.Fees)), constGauge(f.escrow, int64(b.Escrow)), constGauge(f.ledgerDrift, int64(b.Discrepancy())),
		constGauge(f.wallets, int64(b.Available), "available"), constGauge(f.wallets, int64(b.Held), "held"),
	}, nil
}

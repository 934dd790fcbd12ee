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
	// scrapeTimeout is how long figures may take to be read from the store.
	scrapeTimeout = 5 * time.Second
	// countsMaxAge and balancesMaxAge are how old figures from the store may be, so that
	// nobody who scrapes can make the store work: Prometheus asks every 15 s to a
	// minute. Wallets are added up one by one.
	countsMaxAge   = 10 * time.Second
	balancesMaxAge = time.Minute
)

// statsCollector are what is read from the store for metrics. They are left out while they
// cannot be read.
type statsCollector struct {
	db          *database.DB
	now         func() time.Time
	baseContext context.Context //nolint:containedctx // a collector is given none

	readable, issued, fees, wallets, escrow, ledgerDrift, activeTasks, pendingDeliveries, suspendedWebhooks, jobs, oldestJob *prometheus.Desc

	mu                           sync.Mutex
	countsReadAt, balancesReadAt time.Time // when they were read
	countMetrics                 []prometheus.Metric
	balanceMetrics               []prometheus.Metric
}

func newStatsCollector(db *database.DB, now func() time.Time) *statsCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(namespace+"_"+name, help, labels, nil)
	}
	return &statsCollector{
		db: db, now: now, baseContext: context.Background(), //nolint:forbidigo // as above
		readable:          desc("figures_readable", "1 when the figures from the store could be read."),
		issued:            desc("credits_issued", "Credits granted so far."),
		fees:              desc("credits_fees", "Credits the platform earned."),
		wallets:           desc("credits_in_wallets", "Credits in wallets.", "part"),
		escrow:            desc("credits_in_escrow", "Credits of tasks that somebody works on."),
		ledgerDrift:       desc("ledger_drift_credits", "Credits issued that are neither in wallets nor in escrow nor fees: not 0 means that the ledger is wrong."),
		activeTasks:       desc("tasks_under_way", "Tasks that are open or assigned."),
		pendingDeliveries: desc("deliveries_pending", "Webhook deliveries that wait for an attempt."),
		suspendedWebhooks: desc("webhooks_suspended", "Webhooks that are suspended."),
		jobs:              desc("jobs", "Jobs that are not done.", "queue", "state"),
		oldestJob:         desc("jobs_oldest_seconds", "For how long the oldest job has been due that nobody has begun.", "queue"),
	}
}

// Describe names the figures.
func (f *statsCollector) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		f.readable, f.issued, f.fees, f.wallets, f.escrow, f.ledgerDrift, f.activeTasks, f.pendingDeliveries, f.suspendedWebhooks, f.jobs, f.oldestJob,
	} {
		out <- desc
	}
}

// Collect hands out the figures, and reads them first when they are old.
func (f *statsCollector) Collect(out chan<- prometheus.Metric) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ctx, cancel := context.WithTimeout(f.baseContext, scrapeTimeout)
	defer cancel()
	readable := 1.0
	for _, part := range []struct {
		at    *time.Time
		every time.Duration
		kept  *[]prometheus.Metric
		read  func(*database.Snapshot) ([]prometheus.Metric, error)
	}{
		{&f.countsReadAt, countsMaxAge, &f.countMetrics, f.readCounts},
		{&f.balancesReadAt, balancesMaxAge, &f.balanceMetrics, f.readBalances},
	} {
		if now := f.now(); part.at.IsZero() || now.Sub(*part.at) >= part.every {
			err := f.db.Snapshot(ctx, func(state *database.Snapshot) (err error) {
				*part.kept, err = part.read(state)
				return err
			})
			if *part.at = now; err != nil { // it is tried again as soon as counts are
				*part.at, *part.kept = now.Add(countsMaxAge-part.every), nil
			}
		}
		if *part.kept == nil {
			readable = 0
		}
		for _, metric := range *part.kept {
			out <- metric
		}
	}
	out <- constGauge(f.readable, readable)
}

func constGauge[N int64 | float64](desc *prometheus.Desc, value N, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value), labels...)
}

// readCounts reads what is under way: never all that was.
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
	late := map[string]float64{}
	for _, q := range queues {
		counts = append(counts, constGauge(f.jobs, q.Jobs, q.Queue, string(q.State)))
		late[q.Queue] = max(late[q.Queue], q.Lag.Seconds())
	}
	for queue, seconds := range late {
		counts = append(counts, constGauge(f.oldestJob, seconds, queue))
	}
	return counts, nil
}

// readBalances reads where the credits are.
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

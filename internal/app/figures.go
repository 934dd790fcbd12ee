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
	// scrapeTime is how long figures may take to be read from the store.
	scrapeTime = 5 * time.Second
	// countEvery and balanceEvery are how old figures from the store may be, so that
	// nobody who scrapes can make the store work: Prometheus asks every 15 s to a
	// minute. Wallets are added up one by one.
	countEvery   = 10 * time.Second
	balanceEvery = time.Minute
)

// figures are what is read from the store for metrics. They are left out while they
// cannot be read.
type figures struct {
	db     *database.DB
	now    func() time.Time
	within context.Context //nolint:containedctx // a collector is given none

	readable, issued, fees, wallets, escrow, drift, tasks, deliveries, suspended, jobs, late *prometheus.Desc

	mu                sync.Mutex
	counted, balanced time.Time // when they were read
	counts            []prometheus.Metric
	balance           []prometheus.Metric
}

func newFigures(db *database.DB, now func() time.Time) *figures {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(namespace+"_"+name, help, labels, nil)
	}
	return &figures{
		db: db, now: now, within: context.Background(), //nolint:forbidigo // as above
		readable:   desc("figures_readable", "1 when the figures from the store could be read."),
		issued:     desc("credits_issued", "Credits granted so far."),
		fees:       desc("credits_fees", "Credits the platform earned."),
		wallets:    desc("credits_in_wallets", "Credits in wallets.", "part"),
		escrow:     desc("credits_in_escrow", "Credits of tasks that somebody works on."),
		drift:      desc("ledger_drift_credits", "Credits issued that are neither in wallets nor in escrow nor fees: not 0 means that the ledger is wrong."),
		tasks:      desc("tasks_under_way", "Tasks that are open or assigned."),
		deliveries: desc("deliveries_pending", "Webhook deliveries that wait for an attempt."),
		suspended:  desc("webhooks_suspended", "Webhooks that are suspended."),
		jobs:       desc("jobs", "Jobs that are not done.", "queue", "state"),
		late:       desc("jobs_oldest_seconds", "For how long the oldest job has been due that nobody has begun.", "queue"),
	}
}

// Describe names the figures.
func (f *figures) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		f.readable, f.issued, f.fees, f.wallets, f.escrow, f.drift, f.tasks, f.deliveries, f.suspended, f.jobs, f.late,
	} {
		out <- desc
	}
}

// Collect hands out the figures, and reads them first when they are old.
func (f *figures) Collect(out chan<- prometheus.Metric) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ctx, cancel := context.WithTimeout(f.within, scrapeTime)
	defer cancel()
	readable := 1.0
	for _, part := range []struct {
		at    *time.Time
		every time.Duration
		kept  *[]prometheus.Metric
		read  func(*database.State) ([]prometheus.Metric, error)
	}{
		{&f.counted, countEvery, &f.counts, f.count},
		{&f.balanced, balanceEvery, &f.balance, f.addUp},
	} {
		if now := f.now(); part.at.IsZero() || now.Sub(*part.at) >= part.every {
			err := f.db.Snapshot(ctx, func(state *database.State) (err error) {
				*part.kept, err = part.read(state)
				return err
			})
			if *part.at = now; err != nil { // it is tried again as soon as counts are
				*part.at, *part.kept = now.Add(countEvery-part.every), nil
			}
		}
		if *part.kept == nil {
			readable = 0
		}
		for _, metric := range *part.kept {
			out <- metric
		}
	}
	out <- figure(f.readable, readable)
}

func figure[N int64 | float64](desc *prometheus.Desc, value N, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value), labels...)
}

// count reads what is under way: never all that was.
func (f *figures) count(state *database.State) ([]prometheus.Metric, error) {
	var n struct{ Tasks, Deliveries, Suspended int64 }
	err := state.Raw(`SELECT (SELECT COUNT(*) FROM tasks WHERE status = 'open') + (SELECT COUNT(*) FROM tasks WHERE status = 'assigned') AS tasks,
		(SELECT COUNT(*) FROM deliveries WHERE status = 'pending') AS deliveries,
		(SELECT COUNT(*) FROM webhooks WHERE status = 'suspended') AS suspended`).Scan(&n).Error
	if err != nil {
		return nil, err
	}
	queues, err := database.Queues(state)
	if err != nil {
		return nil, err
	}
	counts := []prometheus.Metric{figure(f.tasks, n.Tasks), figure(f.deliveries, n.Deliveries), figure(f.suspended, n.Suspended)}
	late := map[string]float64{}
	for _, q := range queues {
		counts = append(counts, figure(f.jobs, q.Jobs, q.Queue, string(q.State)))
		late[q.Queue] = max(late[q.Queue], q.Late.Seconds())
	}
	for queue, seconds := range late {
		counts = append(counts, figure(f.late, seconds, queue))
	}
	return counts, nil
}

// addUp reads where the credits are.
func (f *figures) addUp(state *database.State) ([]prometheus.Metric, error) {
	b, err := ledger.Balanced(state)
	if err != nil {
		return nil, err
	}
	return []prometheus.Metric{
		figure(f.issued, int64(b.Issued)), figure(f.fees, int64(b.Fees)), figure(f.escrow, int64(b.Escrow)), figure(f.drift, int64(b.Drift())),
		figure(f.wallets, int64(b.Available), "available"), figure(f.wallets, int64(b.Held), "held"),
	}, nil
}

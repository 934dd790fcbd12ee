package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"agentmarket.space/server/bench/load"
)

// work is one line of comparison: a figure that every contender is measured by.
type work struct {
	name  string
	unit  string // of the figure: per second, ms or bytes
	fewer bool   // whether a smaller figure is the better one
	goal  string // of the product; a multiple is of the baseline
}

// sample is what one contender did in one round of one work.
type sample struct {
	figure   float64
	p50, p99 time.Duration
	cpu      time.Duration // of the server, for each operation
}

// experiment measures one or more works of several contenders, alternately.
type experiment struct {
	works      []work
	contenders []contender // the last is the baseline
}

// contender can be measured again and again, once started.
type contender struct {
	name string
	// start returns what takes one sample for each work, and what ends it.
	start func(ctx context.Context) (measure, func(), error)
}

type measure func(ctx context.Context) ([]sample, error)

func (b *bench) experiments() []experiment {
	ours, bare := product(b.productBinary), baseline(b.baselineBinary)
	books := baseline(b.baselineBinary, "-books", "books.db")
	stored, limit := baseline(b.baselineBinary, "-database", "baseline.db"), baseline(b.baselineBinary, "-raw")
	return []experiment{
		{
			works: []work{{name: "post", unit: perSecond, goal: "≥ 3.5×, never below 2.5×; p99 ≤ 25 ms"}},
			contenders: []contender{
				{"AgentMarket, GraphQL", b.requests(ours, (*market).posts)},
				{"gqlgen + gorm, one row and nothing else, a transaction per call", b.requests(stored, (*market).posts)},
				{"gqlgen + gorm, the same work, a transaction per call", b.requests(books, (*market).posts)},
			},
		},
		{
			works: []work{{name: "read", unit: perSecond, goal: "≥ 1.25×, never below 1×"}},
			contenders: []contender{
				{"AgentMarket, GraphQL", b.requests(ours, (*market).reads)},
				{"AgentMarket, REST", b.requests(ours, (*market).restReads)},
				{"limit: net/http, finished bytes", b.requests(limit, (*market).reads)},
				{"gqlgen, constant answers", b.requests(bare, (*market).reads)},
			},
		},
		{
			works: []work{{name: "list", unit: perSecond, goal: "≥ 4×, never below 2.5×"}},
			contenders: []contender{
				{"AgentMarket, GraphQL", b.requests(ours, (*market).lists)},
				{"AgentMarket, REST", b.requests(ours, (*market).restLists)},
				{"limit: net/http, finished bytes", b.requests(limit, (*market).lists)},
				{"gqlgen, constant answers", b.requests(bare, (*market).lists)},
			},
		},
		{
			works: []work{
				{name: "fan-out", unit: perSecond, goal: "≥ 3.5×, never below 3×"},
				{name: "fan-out latency", unit: milliseconds, fewer: true, goal: "p50 ≤ 10 ms, p99 ≤ 25 ms"},
				{name: "idle subscriber", unit: bytesEach, fewer: true, goal: "≤ 12 kB, never above 16 kB"},
			},
			contenders: []contender{
				{"AgentMarket", b.broadcasts(ours)},
				{"limit: gorilla/websocket, one message for all", b.broadcasts(limit)},
				{"gqlgen, its own WebSocket transport", b.broadcasts(bare)},
			},
		},
	}
}

// open starts a server and fills it, or pretends to when it is a baseline.
func (b *bench) open(ctx context.Context, run command, tasks int) (*market, error) {
	s, err := launch(ctx, run)
	if err != nil {
		return nil, err
	}
	m := &market{server: s}
	if s.cmd.Path != b.productBinary {
		m.pretend()
		return m, nil
	}
	if err := m.populate(ctx, tasks); err != nil {
		err = fmt.Errorf("%w; the log ends with %q", err, s.logTail())
		s.stop()
		return nil, err
	}
	return m, nil
}

// requests measures requests over b.connections, while ten tasks a second are
// posted, so that nothing that was answered before may be answered again
// unlooked at.
func (b *bench) requests(run command, of func(*market) []load.Request) func(context.Context) (measure, func(), error) {
	return func(ctx context.Context) (measure, func(), error) {
		m, err := b.open(ctx, run, openTasks)
		if err != nil {
			return nil, nil, err
		}
		requests := of(m)
		if _, err := load.Run(ctx, m.addr, b.connections, requests, &m.numbers, time.Second); err != nil {
			m.stop()
			return nil, nil, err
		}
		return func(ctx context.Context) ([]sample, error) {
			posting, stop := context.WithCancel(ctx)
			posted := make(chan error, 1)
			go func() { posted <- load.Pace(posting, m.addr, m.posts(), &m.numbers, 10) }()
			var result *load.Result
			cpu, err := b.charge(m, func() (err error) {
				result, err = load.Run(ctx, m.addr, b.connections, requests, &m.numbers, b.duration)
				return err
			})
			stop()
			if err := cmp.Or(err, <-posted); err != nil {
				return nil, err
			}
			n := result.Latency.Count()
			return []sample{{
				figure: float64(n) / result.Elapsed.Seconds(),
				p50:    result.Latency.Quantile(.5),
				p99:    result.Latency.Quantile(.99),
				cpu:    cpu / time.Duration(n),
			}}, nil
		}, m.stop, nil
	}
}

// window is how many events may be on their way at once when a server is asked
// how much it can deliver.
const window = 8

// broadcasts measures b.subscribers of one server: what they can be delivered,
// how late they are told of ten events a second, and what memory they take
// while nothing happens. The server is a fresh one each time: a heap that has
// been used has room for subscribers already.
func (b *bench) broadcasts(run command) func(context.Context) (measure, func(), error) {
	return func(context.Context) (measure, func(), error) {
		return func(ctx context.Context) ([]sample, error) {
			m, err := b.open(ctx, run, 1)
			if err != nil {
				return nil, err
			}
			defer m.stop()
			return b.broadcast(ctx, m)
		}, func() {}, nil
	}
}

func (b *bench) broadcast(ctx context.Context, m *market) ([]sample, error) {
	const many, few, warming = 100, 40, 50
	empty, err := m.usage()
	if err != nil {
		return nil, err
	}
	audience, err := load.Gather(ctx, m.subscription(), b.subscribers, many+few+warming)
	if err != nil {
		return nil, err
	}
	defer audience.Close() //nolint:errcheck // nothing is lost with it
	time.Sleep(2 * time.Second)
	idle, err := m.usage()
	if err != nil {
		return nil, err
	}
	post := m.posts()[0]
	if err := audience.Warm(ctx, m.addr, post); err != nil {
		return nil, err
	}
	capacity, err := b.deliver(ctx, m, audience, many, load.Pacing{Window: window})
	if err != nil {
		return nil, err
	}
	paced, err := b.deliver(ctx, m, audience, few, load.Pacing{Window: window, PerSecond: 10})
	if err != nil {
		return nil, err
	}
	paced.figure = float64(paced.p99) / float64(time.Millisecond)
	memory := sample{figure: float64(idle.rss-empty.rss) / float64(b.subscribers)}
	return []sample{capacity, paced, memory}, nil
}

func (b *bench) deliver(ctx context.Context, m *market, audience *load.Audience, events int, pacing load.Pacing) (sample, error) {
	var delivery *load.Delivery
	cpu, err := b.charge(m, func() (err error) {
		delivery, err = audience.Broadcast(ctx, m.addr, m.posts()[0], events, pacing)
		return err
	})
	if err != nil {
		return sample{}, err
	}
	return sample{
		figure: float64(delivery.Deliveries) / delivery.Elapsed.Seconds(),
		p50:    delivery.Latency.Quantile(.5),
		p99:    delivery.Latency.Quantile(.99),
		cpu:    cpu / time.Duration(delivery.Deliveries),
	}, nil
}

// charge does something and returns the CPU time that the server used
// meanwhile. What other programs used is kept for the report.
func (b *bench) charge(m *market, do func() error) (time.Duration, error) {
	before, err := m.usage()
	if err != nil {
		return 0, err
	}
	start, busy, own := time.Now(), busyCPU(), ownCPU()
	if err := do(); err != nil {
		return 0, err
	}
	after, err := m.usage()
	if err != nil {
		return 0, err
	}
	others := busyCPU() - busy - (ownCPU() - own) - (after.cpu - before.cpu)
	b.others = append(b.others, max(0, others.Seconds()/time.Since(start).Seconds()))
	return after.cpu - before.cpu, nil
}

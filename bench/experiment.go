package main

import (
	"context"
	"fmt"
	"time"
)

// work is one line of comparison: a figure that every contender is measured by.
type work struct {
	name  string
	unit  string // of the figure: per second, ms or bytes
	fewer bool   // whether a smaller figure is the better one
}

// sample is what one contender did in one round of one work.
type sample struct {
	figure   float64
	p50, p99 time.Duration
	cpu      time.Duration // of the server, for each operation
	posts    float64       // that the server took beside it, each second
}

// experiment measures one or more works of several contenders, alternately.
type experiment struct {
	works      []work
	contenders []contender
	first      int // the contender that all others are compared with
}

// contender can be measured again and again, once started.
type contender struct {
	name string
	// start returns what takes one sample for each work, and what ends it.
	start func(ctx context.Context) (measure, func(), error)
	// goals are by work: of the first contender its own figures, of any other by
	// how much the first should be better.
	goals []string
}

type measure func(ctx context.Context) ([]sample, error)

const (
	few      = 10   // posts a second while something else is measured
	many     = 1000 // the same, when much changes
	mercury  = "Mercurius (JIT) + better-sqlite3, one row a task and nothing else"
	pocket   = "PocketBase, one row a task and nothing else"
	finished = "limit: net/http, finished bytes"
	constant = "gqlgen, constant answers"
)

func (b *bench) experiments() []experiment {
	e := b.entrants()
	lists := func(name string, perSecond float64) experiment {
		list := func(e entrant, of requests) starter { return b.requests(e, of, perSecond) }
		return experiment{works: []work{{name: name, unit: eachSecond}}, contenders: b.withPeers([]contender{
			{"AgentMarket, GraphQL", list(e.ours, (*market).lists), nil},
			{"AgentMarket, REST", list(e.ours, (*market).restLists), []string{rest}},
			{finished, list(e.limit, (*market).lists), nil},
			{constant, list(e.bare, (*market).lists), []string{"≥ 4×, never below 2.5×"}},
		}, contender{mercury, list(e.mercurius, (*market).lists), []string{"≥ 4×, never below 2.5×"}},
			contender{pocket, list(e.pocketbase, (*market).recordLists), []string{"≥ 7×, never below 2.5×"}})}
	}
	return []experiment{
		{works: []work{{name: "post", unit: eachSecond}}, contenders: b.withPeers([]contender{
			{"AgentMarket, GraphQL", b.requests(e.ours, (*market).posts, few), []string{"p99 ≤ 25 ms"}},
			{"gqlgen + gorm, the same work, a transaction per call", b.requests(e.books, (*market).posts, few), []string{"≥ 3.5×, never below 2.5×"}},
			{"gqlgen + gorm, one row a task and nothing else, a transaction per call", b.requests(e.stored, (*market).posts, few), nil},
		}, contender{mercury, b.requests(e.mercurius, (*market).posts, few), []string{"≥ 3.5×, never below 2.5×"}},
			contender{pocket, b.requests(e.pocketbase, (*market).records, few), []string{"≥ 4×, never below 2.5×"}})},
		{works: []work{{name: "read", unit: eachSecond}}, contenders: b.withPeers([]contender{
			{"AgentMarket, GraphQL", b.requests(e.ours, (*market).reads, few), nil},
			{"AgentMarket, REST", b.requests(e.ours, (*market).restReads, few), []string{rest}},
			{finished, b.requests(e.limit, (*market).reads, few), nil},
			{constant, b.requests(e.bare, (*market).reads, few), []string{"≥ 1.25×, never below 1×"}},
		}, contender{mercury, b.requests(e.mercurius, (*market).reads, few), []string{"≥ 2×, never below 1.5×"}},
			contender{pocket, b.requests(e.pocketbase, (*market).recordReads, few), []string{"≥ 3×, never below 1.5×"}})},
		lists("list, 10 posts/s", few),
		lists("list, 1 000 posts/s", many),
		b.fanOut(audience{subscribers: b.subscribers, stalled: 10, words: mixed, events: 150, paced: 40, rate: 10},
			"p50 ≤ 10 ms, p99 ≤ 25 ms", "≥ 3.5×, never below 3×"),
		b.fanOut(audience{label: ", filters of 1 to 100 words", subscribers: b.subscribers, stalled: 10, words: long, events: 150, paced: 40, rate: 10},
			"p50 ≤ 10 ms, p99 ≤ 25 ms", "≥ 3.5×, never below 3×"),
		b.fanOut(audience{subscribers: 5 * b.subscribers, stalled: 10, words: mixed, events: 40, paced: 16, rate: 4},
			"p50 ≤ 35 ms, p99 ≤ 80 ms", "≥ 2.5×, never below 2×"),
	}
}

// rest is the goal of the REST routes.
const rest = "≤ 1×: REST is at least as fast"

// entrants are all servers that are measured.
type entrants struct {
	ours, bare, books, stored, limit, mercurius, pocketbase entrant
}

func (b *bench) entrants() entrants {
	from := func(flags ...string) entrant {
		return entrant{baseline(b.baselineBinary, flags...), pretend, (*market).posts, (*market).subscription}
	}
	e := entrants{
		ours:       entrant{product(b.productBinary), populate, (*market).posts, (*market).subscription},
		bare:       from(),
		books:      from("-books", "books.db"),
		stored:     from("-database", "baseline.db"),
		limit:      from("-raw"),
		mercurius:  entrant{b.mercurius, stock, (*market).posts, (*market).subscription},
		pocketbase: entrant{b.pocketbase, stock, (*market).records, (*market).topic},
	}
	e.limit.subscription = (*market).unnumbered
	return e
}

// withPeers adds those peers that there are.
func (b *bench) withPeers(all []contender, mercurius, pocketbase contender) []contender {
	if b.mercurius != nil {
		all = append(all, mercurius)
	}
	if b.pocketbase != nil {
		all = append(all, pocketbase)
	}
	return all
}

// open starts a server and fills it.
func (b *bench) open(ctx context.Context, e entrant, tasks int) (*market, error) {
	s, err := launch(ctx, e.run)
	if err != nil {
		return nil, err
	}
	m := &market{server: s, entrant: e}
	if err := e.fill(ctx, m, tasks); err != nil {
		err = fmt.Errorf("%w; the log ends with %q", err, s.logTail())
		s.stop()
		return nil, err
	}
	return m, nil
}

// charge does something and returns the CPU time that the server used
// meanwhile. What the benchmark itself and other programs used is kept for the
// report.
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
	seconds, mine := time.Since(start).Seconds(), ownCPU()-own
	others := busyCPU() - busy - mine - (after.cpu - before.cpu)
	b.generator = append(b.generator, mine.Seconds()/seconds)
	b.others = append(b.others, max(0, others.Seconds()/seconds))
	return after.cpu - before.cpu, nil
}

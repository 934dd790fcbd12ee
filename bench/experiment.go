package main

import (
	"context"
	"fmt"
	"time"
)

// workload is a row of comparison with one figure for each contender.
type workload struct {
	name          string
	unit          string // of the figure: per second, ms or bytes
	lowerIsBetter bool
}

// sample is the result of one contender in one round of a workload.
type sample struct {
	figure         float64
	p50, p99       time.Duration
	cpu            time.Duration // of the server for each operation
	postsPerSecond float64       // background posts a second
}

// experiment measures workloads of several contenders in alternation.
type experiment struct {
	workloads  []workload
	contenders []contender
	reference  int // index of the contender that all others are compared with
}

// contender is a server that can be started and measured repeatedly.
type contender struct {
	name string
	// start starts the server and returns a function that takes one sample of each
	// workload, and one that stops it.
	start func(ctx context.Context) (measureFunc, func(), error)
	// goals are by workload: for the first contender of its figures, for others of the
	// ratio to the first.
	goals []string
}

type measureFunc func(ctx context.Context) ([]sample, error)

const (
	lightPostRate    = 10   // background posts a second
	heavyPostRate    = 1000 // the same with many changes
	mercuriusLabel   = "Mercurius (JIT) + better-sqlite3, one row a task and nothing else"
	pocketbaseLabel  = "PocketBase, one row a task and nothing else"
	staticBytesLabel = "limit: net/http, finished bytes"
	constantLabel    = "gqlgen, constant answers"
)

func (b *bench) allExperiments() []experiment {
	e := b.targets()
	lists := func(name string, perSecond float64) experiment {
		list := func(e target, of requestsFunc) startFunc { return b.requestStarter(e, of, perSecond) }
		return experiment{workloads: []workload{{name: name, unit: unitPerSecond}}, contenders: b.withPeers([]contender{
			{"AgentMarket, GraphQL", list(e.agentMarket, (*market).lists), nil},
			{"AgentMarket, REST", list(e.agentMarket, (*market).restLists), []string{restGoal}},
			{staticBytesLabel, list(e.rawHTTP, (*market).lists), nil},
			{constantLabel, list(e.gqlgen, (*market).lists), []string{"≥ 4×, never below 2.5×"}},
		}, contender{mercuriusLabel, list(e.mercurius, (*market).lists), []string{"≥ 4×, never below 2.5×"}},
			contender{pocketbaseLabel, list(e.pocketbase, (*market).pocketbaseLists), []string{"≥ 7×, never below 2.5×"}})}
	}
	return []experiment{
		{workloads: []workload{{name: "post", unit: unitPerSecond}}, contenders: b.withPeers([]contender{
			{"AgentMarket, GraphQL", b.requestStarter(e.agentMarket, (*market).posts, lightPostRate), []string{"p99 ≤ 25 ms"}},
			{"gqlgen + gorm, the same work, a transaction per call", b.requestStarter(e.gqlgenLedger, (*market).posts, lightPostRate), []string{"≥ 3.5×, never below 2.5×"}},
			{"gqlgen + gorm, one row a task and nothing else, a transaction per call", b.requestStarter(e.gqlgenStored, (*market).posts, lightPostRate), nil},
		}, contender{mercuriusLabel, b.requestStarter(e.mercurius, (*market).posts, lightPostRate), []string{"≥ 3.5×, never below 2.5×"}},
			contender{pocketbaseLabel, b.requestStarter(e.pocketbase, (*market).pocketbasePosts, lightPostRate), []string{"≥ 4×, never below 2.5×"}})},
		{workloads: []workload{{name: "read", unit: unitPerSecond}}, contenders: b.withPeers([]contender{
			{"AgentMarket, GraphQL", b.requestStarter(e.agentMarket, (*market).reads, lightPostRate), nil},
			{"AgentMarket, REST", b.requestStarter(e.agentMarket, (*market).restReads, lightPostRate), []string{restGoal}},
			{staticBytesLabel, b.requestStarter(e.rawHTTP, (*market).reads, lightPostRate), nil},
			{constantLabel, b.requestStarter(e.gqlgen, (*market).reads, lightPostRate), []string{"≥ 1.25×, never below 1×"}},
		}, contender{mercuriusLabel, b.requestStarter(e.mercurius, (*market).reads, lightPostRate), []string{"≥ 2×, never below 1.5×"}},
			contender{pocketbaseLabel, b.requestStarter(e.pocketbase, (*market).pocketbaseReads, lightPostRate), []string{"≥ 3×, never below 1.5×"}})},
		lists("list, 10 posts/s", lightPostRate),
		lists("list, 1 000 posts/s", heavyPostRate),
		b.fanOutExperiment(audience{subscribers: b.subscribers, stalled: 10, filterFor: mixedFilter, events: 150, pacedEvents: 40, rate: 10},
			"p50 ≤ 10 ms, p99 ≤ 25 ms", "≥ 3.5×, never below 3×"),
		b.fanOutExperiment(audience{label: ", filters of 1 to 100 words", subscribers: b.subscribers, stalled: 10, filterFor: longFilter, events: 150, pacedEvents: 40, rate: 10},
			"p50 ≤ 10 ms, p99 ≤ 25 ms", "≥ 3.5×, never below 3×"),
		b.fanOutExperiment(audience{subscribers: 5 * b.subscribers, stalled: 10, filterFor: mixedFilter, events: 40, pacedEvents: 16, rate: 4},
			"p50 ≤ 35 ms, p99 ≤ 80 ms", "≥ 2.5×, never below 2×"),
		b.idleExperiment(),
	}
}

// restGoal is the goal of the REST routes.
const restGoal = "≤ 1×: REST is at least as fast"

// targetSet has every measured server.
type targetSet struct {
	agentMarket, gqlgen, gqlgenLedger, gqlgenStored, rawHTTP, mercurius, pocketbase target
}

func (b *bench) targets() targetSet {
	from := func(flags ...string) target {
		return target{baseline(b.baselineBinary, flags...), assignRandomIDs, (*market).posts, (*market).subscription}
	}
	e := targetSet{
		agentMarket:  target{product(b.productBinary), fillMarket, (*market).posts, (*market).subscription},
		gqlgen:       from(),
		gqlgenLedger: from("-books", "books.db"),
		gqlgenStored: from("-database", "baseline.db"),
		rawHTTP:      from("-raw"),
		mercurius:    target{b.mercurius, fillWithoutKeys, (*market).posts, (*market).subscription},
		pocketbase:   target{b.pocketbase, fillWithoutKeys, (*market).pocketbasePosts, (*market).pocketbaseSubscription},
	}
	e.rawHTTP.subscription = (*market).subscriptionWithoutCursors
	return e
}

// withPeers appends the peers that are available.
func (b *bench) withPeers(all []contender, mercurius, pocketbase contender) []contender {
	if b.mercurius != nil {
		all = append(all, mercurius)
	}
	if b.pocketbase != nil {
		all = append(all, pocketbase)
	}
	return all
}

// startTarget starts a server and fills it.
func (b *bench) startTarget(ctx context.Context, e target, tasks int) (*market, error) {
	s, err := launch(ctx, e.run)
	if err != nil {
		return nil, err
	}
	m := &market{server: s, target: e}
	if err := e.fill(ctx, m, tasks); err != nil {
		err = fmt.Errorf("%w; the log ends with %q", err, s.logTail())
		s.stop()
		return nil, err
	}
	return m, nil
}

// measureCPU calls do and returns the CPU time that the server used during the call. It
// records the CPU time of the benchmark and of other programs for the report.
func (b *bench) measureCPU(m *market, do func() error) (time.Duration, error) {
	before, err := m.usage()
	if err != nil {
		return 0, err
	}
	start, busy, own := time.Now(), machineCPU(), processCPU()
	if err := do(); err != nil {
		return 0, err
	}
	after, err := m.usage()
	if err != nil {
		return 0, err
	}
	seconds, mine := time.Since(start).Seconds(), processCPU()-own
	others := machineCPU() - busy - mine - (after.cpu - before.cpu)
	b.generatorCores = append(b.generatorCores, mine.Seconds()/seconds)
	b.otherCores = append(b.otherCores, max(0, others.Seconds()/seconds))
	return after.cpu - before.cpu, nil
}

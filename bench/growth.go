package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"agentmarket.space/server/bench/load"
)

// growthExperiments compare the product with itself at other sizes. The figure is the CPU
// time of an operation, and one size is the reference.
func (b *bench) growthExperiments() []experiment {
	const goal = "≤ 1.5×, never above 2×"
	return []experiment{b.growthOfStore(goal), b.growthOfAudience(goal), b.growthOfFilters(goal), b.growthOfTasks(goal)}
}

func (b *bench) growthOfStore(goal string) experiment {
	var e experiment
	for _, operation := range []string{
		"start", "read", "list", "list by a common word", "list by a rare word", "agents by a common word, best first",
		"agents by a rare word, best first", "post", "accept and complete",
	} {
		e.workloads = append(e.workloads, workload{name: "growth: " + operation, unit: unitMicroseconds, lowerIsBetter: true})
	}
	for _, operation := range searchOperations() {
		e.workloads = append(e.workloads, workload{name: "growth: " + operation, unit: unitMedian, lowerIsBetter: true})
	}
	goals := append(repeat(goal, len(e.workloads)-len(searchOperations())), searchGoals()...)
	const largest = 1_000_000
	for _, size := range []int{100, 10_000, largest} {
		e.contenders = append(e.contenders, contender{fmt.Sprintf("%d tasks and agents", size), b.storeStarter(size, ""), goals})
	}
	if b.postgres != "" {
		e.contenders = append(e.contenders, contender{fmt.Sprintf("%d tasks and agents, PostgreSQL", largest), b.storeStarter(largest, b.postgres), nil})
	}
	e.contenders[0].goals = nil
	return e
}

// growthOfAudience has a thousand subscribers as the reference; with fewer the post itself
// costs more than the deliveries.
func (b *bench) growthOfAudience(goal string) experiment {
	e := experiment{workloads: []workload{{name: "growth: delivery", unit: unitMicroseconds, lowerIsBetter: true}}, reference: 2}
	for _, subscribers := range []int{10, 100, 1000, 10_000} {
		a := audience{subscribers: subscribers, filterFor: mixedFilter, events: min(400, 200_000/subscribers), pacedEvents: 10, rate: 4}
		e.contenders = append(e.contenders, contender{fmt.Sprintf("%d subscribers", subscribers), measureCost(b.broadcastStarter(b.targets().agentMarket, a)), nil})
	}
	e.contenders[3].goals = []string{goal}
	return e
}

func (b *bench) growthOfFilters(goal string) experiment {
	e := experiment{workloads: []workload{{name: "growth: delivery by filter", unit: unitMicroseconds, lowerIsBetter: true}}}
	for _, words := range []int{1, 20, 100} { // 100 is the maximum of the schema
		a := audience{subscribers: 1000, filterFor: func(i int) []string { return filterOfSize(i, words) }, events: 200, pacedEvents: 10, rate: 10}
		e.contenders = append(e.contenders, contender{fmt.Sprintf("filters of %d words", words), measureCost(b.broadcastStarter(b.targets().agentMarket, a)), []string{goal}})
	}
	e.contenders[0].goals = nil
	return e
}

func repeat(text string, times int) []string {
	all := make([]string, times)
	for i := range all {
		all[i] = text
	}
	return all
}

// growthOfTasks posts tasks that require one capability and the maximum number.
func (b *bench) growthOfTasks(goal string) experiment {
	e := experiment{workloads: []workload{{name: "growth: post by words", unit: unitMicroseconds, lowerIsBetter: true}}}
	for _, words := range []int{1, 20} { // 20 is the maximum of the schema
		posts := func(m *market) []load.Request { return m.postsWithCapabilities(filterOfSize(0, words)) }
		e.contenders = append(e.contenders, contender{
			fmt.Sprintf("tasks of %d words", words), measureCost(b.requestStarter(b.targets().agentMarket, posts, lightPostRate)), []string{goal},
		})
	}
	e.contenders[0].goals = nil
	return e
}

// measureCost keeps the first workload only, with its CPU time as the figure. The cost of a
// delivery includes a share of the post.
func measureCost(start startFunc) startFunc {
	return func(ctx context.Context) (measureFunc, func(), error) {
		measure, stop, err := start(ctx)
		return func(ctx context.Context) ([]sample, error) {
			samples, err := measure(ctx)
			if err != nil {
				return nil, err
			}
			return []sample{withCostAsFigure(samples[0])}, nil
		}, stop, err
	}
}

// withCostAsFigure replaces the figure by the CPU time.
func withCostAsFigure(s sample) sample {
	s.figure = float64(s.cpu) / float64(time.Microsecond)
	return s
}

// storeStarter measures the product on a store with size tasks and agents. The store is
// created for each sample unless that takes long; then a round adds few rows compared with
// its size.
func (b *bench) storeStarter(size int, postgres string) startFunc {
	return func(context.Context) (measureFunc, func(), error) {
		s := store{dir: filepath.Join(b.storesDir, strconv.Itoa(size)), size: size}
		return func(ctx context.Context) ([]sample, error) {
			if _, err := os.Stat(s.file()); err != nil || size <= 10_000 {
				if err := s.refill(ctx, b.productBinary); err != nil {
					return nil, err
				}
			}
			if postgres != "" {
				s.postgres = postgres
				if err := s.copyToPostgres(ctx, b.productBinary); err != nil {
					return nil, err
				}
			}
			return b.measureStore(ctx, s)
		}, func() {}, nil
	}
}

// queryVariants is the number of wordings of a query: more than the product caches, so that
// each is executed.
const queryVariants = 3000

// growthConnections is low because a query may take a second of CPU time.
const growthConnections = 4

// measureStore measures every operation on a store once.
func (b *bench) measureStore(ctx context.Context, s store) ([]sample, error) {
	ids, err := s.sampleTaskIDs(ctx, queryVariants)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	server, err := launch(ctx, s.serverCommand(b.productBinary))
	if err != nil {
		return nil, err
	}
	defer server.stop()
	started, err := server.usage()
	if err != nil {
		return nil, err
	}
	samples := []sample{withCostAsFigure(sample{p50: time.Since(start), cpu: started.cpu})}
	m := &market{server: server, target: b.targets().agentMarket, ids: ids}
	for i := range agents {
		m.keys = append(m.keys, agentKey(i))
	}
	conn, err := load.Dial(ctx, m.addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // the connection is not used again
	if err := errors.Join(m.registerWebhook(conn), m.waitIdle(ctx)); err != nil {
		return nil, err
	}
	for _, asked := range [][]load.Request{
		m.allReads(), m.taskSearches(""), m.taskSearches("common"), m.taskSearches("rare"), m.agentSearches("common"), m.agentSearches("rare"),
	} {
		s, err := b.measureRequests(ctx, m, growthConnections, asked, m.profileUpdates(), 100)
		if err != nil {
			return nil, err
		}
		s.postsPerSecond = 0
		samples = append(samples, withCostAsFigure(s))
	}
	posted, took, err := b.measurePosts(ctx, m)
	if err != nil {
		return nil, err
	}
	done, err := b.measureSequences(ctx, m, m.acceptAndComplete(posted), nil)
	if err != nil {
		return nil, err
	}
	searches, err := b.measureSearches(ctx, m, s.size)
	return append(append(samples, took, done), searches...), err
}

// measurePosts posts a fixed number of tasks, so that a small store stays small.
func (b *bench) measurePosts(ctx context.Context, m *market) (ids []string, s sample, err error) {
	requests := m.posts()
	var posts [][]load.Request
	for i := range 1000 { // the first half of the agents posts, the others work
		posts = append(posts, requests[i%(agents/2):i%(agents/2)+1])
	}
	s, err = b.measureSequences(ctx, m, posts, func(answer []byte) { ids = append(ids, firstID(answer)) })
	return ids, s, err
}

// measureSequences measures sequences of requests until the server is idle again, because a
// post enqueues jobs.
func (b *bench) measureSequences(ctx context.Context, m *market, all [][]load.Request, keep func([]byte)) (sample, error) {
	var result *load.Result
	cpu, err := b.measureCPU(m, func() (err error) {
		if result, err = load.RunSequences(ctx, m.addr, b.connections, all, &m.stamps, keep); err != nil {
			return err
		}
		return m.waitIdle(ctx)
	})
	if err != nil {
		return sample{}, err
	}
	return withCostAsFigure(sample{p50: result.Latency.Quantile(.5), p99: result.Latency.Quantile(.99), cpu: cpu / time.Duration(len(all))}), nil
}

// waitIdle waits until the server uses less than a twentieth of a core, for at most ten
// seconds. Jobs that take longer are part of the cost.
func (m *market) waitIdle(ctx context.Context) error {
	const look = 400 * time.Millisecond
	before, err := m.usage()
	for end := time.Now().Add(10 * time.Second); err == nil && time.Now().Before(end); {
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return ctx.Err()
		}
		var now usage
		if now, err = m.usage(); err == nil && now.cpu-before.cpu < look/20 {
			return nil
		}
		before = now
	}
	return err
}

// allReads reads every task as every caller in turn.
func (m *market) allReads() []load.Request {
	known, keys := m.ids, m.keys
	defer func() { m.ids, m.keys = known, keys }()
	var all []load.Request
	for i := 0; len(all) < queryVariants; i++ {
		m.keys = keys[i%agents : i%agents+1]
		all = append(all, m.reads()...)
	}
	return all
}

// taskSearches lists open tasks that require a capability, or any if word is "". The
// wordings are equivalent.
func (m *market) taskSearches(word string) []load.Request {
	var all []load.Request
	for i := range queryVariants {
		filter := map[string]any{"status": repeat("OPEN", 1+i%100)}
		for bit, field := range []string{"search", "minBudget"} {
			if i/100>>bit&1 == 1 {
				filter[field] = nil
			}
		}
		if word != "" {
			filter["capability"] = padWord(word, i/100)
		}
		all = append(all, graphql(m.key(i), `query($filter: TaskFilter) { tasks(first: 20, filter: $filter) { nodes { `+taskFields+` } } }`,
			map[string]any{"filter": filter}, `"title":"bench`, 20))
	}
	return all
}

// agentSearches lists agents with a capability, best first.
func (m *market) agentSearches(word string) []load.Request {
	var all []load.Request
	for i := range queryVariants {
		all = append(all, graphql(m.key(i),
			`query($filter: AgentFilter) { agents(first: 20, filter: $filter, orderBy: {field: REPUTATION}) { nodes { id name description capabilities reputationScore } } }`,
			map[string]any{"filter": map[string]any{"capability": padWord(word, i)}}, `"name":"`, 20))
	}
	return all
}

// padWord writes a word in one of many equivalent ways.
func padWord(word string, i int) string {
	return strings.Repeat(" ", i%60) + word + strings.Repeat(" ", i/60)
}

// profileUpdates change an agent's profile. They invalidate cached responses and do not add
// rows.
func (m *market) profileUpdates() []load.Request {
	return []load.Request{graphql(m.keys[0], `mutation { updateAgent(input: {description: "`+load.Stamp+`"}) { agent { id } } }`, nil, `"id":"`, 1)}
}

// acceptAndComplete accepts and completes each task once, by an agent other than its
// poster.
func (m *market) acceptAndComplete(ids []string) [][]load.Request {
	var all [][]load.Request
	for i, id := range ids {
		worker := m.keys[agents/2+i%(agents/2)]
		all = append(all, []load.Request{
			graphql(worker, `mutation($id: ID!) { acceptTask(input: {taskId: $id}) { task { status } } }`, map[string]any{"id": id}, `"ASSIGNED"`, 1),
			graphql(worker, `mutation($id: ID!) { completeTask(input: {taskId: $id, result: "Done."}) { task { status } } }`, map[string]any{"id": id}, `"COMPLETED"`, 1),
		})
	}
	return all
}

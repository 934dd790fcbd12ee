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

// growth compares the product with itself when there is more of everything. The
// figure is what an operation costs it, and all are compared with one size.
func (b *bench) growth() []experiment {
	const goal = "≤ 1.5×, never above 2×"
	return []experiment{b.growthOfStore(goal), b.growthOfAudience(goal), b.growthOfFilters(goal), b.growthOfTasks(goal)}
}

func (b *bench) growthOfStore(goal string) experiment {
	var e experiment
	for _, operation := range []string{
		"start", "read", "list", "list by a common word", "list by a rare word", "agents by a common word, best first",
		"agents by a rare word, best first", "post", "accept and complete",
	} {
		e.works = append(e.works, work{name: "growth: " + operation, unit: microseconds, fewer: true})
	}
	for _, size := range []int{100, 10_000, 1_000_000} {
		e.contenders = append(e.contenders, contender{fmt.Sprintf("%d tasks and agents", size), b.storeOf(size), repeat(goal, len(e.works))})
	}
	e.contenders[0].goals = nil
	return e
}

// growthOfAudience is compared with a thousand subscribers: below, the post
// itself outweighs the deliveries.
func (b *bench) growthOfAudience(goal string) experiment {
	e := experiment{works: []work{{name: "growth: delivery", unit: microseconds, fewer: true}}, first: 2}
	for _, subscribers := range []int{10, 100, 1000, 10_000} {
		a := audience{subscribers: subscribers, words: mixed, events: min(400, 200_000/subscribers), paced: 10, rate: 4}
		e.contenders = append(e.contenders, contender{fmt.Sprintf("%d subscribers", subscribers), costing(b.broadcasts(b.entrants().ours, a)), nil})
	}
	e.contenders[3].goals = []string{goal}
	return e
}

func (b *bench) growthOfFilters(goal string) experiment {
	e := experiment{works: []work{{name: "growth: delivery by filter", unit: microseconds, fewer: true}}}
	for _, words := range []int{1, 20, 100} { // 100 is the most that the schema takes
		a := audience{subscribers: 1000, words: func(i int) []string { return filter(i, words) }, events: 200, paced: 10, rate: 10}
		e.contenders = append(e.contenders, contender{fmt.Sprintf("filters of %d words", words), costing(b.broadcasts(b.entrants().ours, a)), []string{goal}})
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

// growthOfTasks posts tasks that ask for one word and for as many as may be.
func (b *bench) growthOfTasks(goal string) experiment {
	e := experiment{works: []work{{name: "growth: post by words", unit: microseconds, fewer: true}}}
	for _, words := range []int{1, 20} { // 20 is the most that the schema takes
		posts := func(m *market) []load.Request { return m.postsOf(filter(0, words)) }
		e.contenders = append(e.contenders, contender{
			fmt.Sprintf("tasks of %d words", words), costing(b.requests(b.entrants().ours, posts, few)), []string{goal},
		})
	}
	e.contenders[0].goals = nil
	return e
}

// costing measures the first work only, by what it costs the server. The cost of
// a delivery has its share of the post in it.
func costing(start starter) starter {
	return func(ctx context.Context) (measure, func(), error) {
		measure, stop, err := start(ctx)
		return func(ctx context.Context) ([]sample, error) {
			samples, err := measure(ctx)
			if err != nil {
				return nil, err
			}
			return []sample{costOf(samples[0])}, nil
		}, stop, err
	}
}

// costOf has the CPU time as its figure.
func costOf(s sample) sample {
	s.figure = float64(s.cpu) / float64(time.Microsecond)
	return s
}

// storeOf measures the product on a store of that many tasks and agents. It is
// a fresh one each time, unless that takes long: then what a round adds to it is
// little beside what is there.
func (b *bench) storeOf(size int) starter {
	return func(context.Context) (measure, func(), error) {
		s := store{dir: filepath.Join(b.stores, strconv.Itoa(size)), size: size}
		return func(ctx context.Context) ([]sample, error) {
			if _, err := os.Stat(s.file()); err != nil || size <= 10_000 {
				if err := s.fill(ctx, b.productBinary); err != nil {
					return nil, err
				}
			}
			return b.grown(ctx, s)
		}, func() {}, nil
	}
}

// variants is how many wordings of a question are asked in turn: more than the
// answers that the product keeps, so that each is worked out.
const variants = 3000

// askers is how many connections ask at once: few, for a question may take a
// second of CPU time.
const askers = 4

// grown measures every operation on a store once.
func (b *bench) grown(ctx context.Context, s store) ([]sample, error) {
	ids, err := s.taskIDs(ctx, variants)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	server, err := launch(ctx, s.serve(b.productBinary))
	if err != nil {
		return nil, err
	}
	defer server.stop()
	started, err := server.usage()
	if err != nil {
		return nil, err
	}
	samples := []sample{costOf(sample{p50: time.Since(began), cpu: started.cpu})}
	m := &market{server: server, entrant: b.entrants().ours, ids: ids}
	for i := range agents {
		m.keys = append(m.keys, keyOf(i))
	}
	conn, err := load.Dial(ctx, m.addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // nothing is lost with it
	if err := errors.Join(m.hook(conn), m.rest(ctx)); err != nil {
		return nil, err
	}
	for _, asked := range [][]load.Request{
		m.allReads(), m.tasksBy(""), m.tasksBy("common"), m.tasksBy("rare"), m.agentsBy("common"), m.agentsBy("rare"),
	} {
		s, err := b.request(ctx, m, askers, asked, m.renames(), 100)
		if err != nil {
			return nil, err
		}
		s.posts = 0
		samples = append(samples, costOf(s))
	}
	posted, took, err := b.postMany(ctx, m)
	if err != nil {
		return nil, err
	}
	done, err := b.sequences(ctx, m, m.jobs(posted), nil)
	return append(samples, took, done), err
}

// postMany posts tasks, a bounded number so that a small store stays small.
func (b *bench) postMany(ctx context.Context, m *market) (ids []string, s sample, err error) {
	requests := m.posts()
	var posts [][]load.Request
	for i := range 1000 { // by the first half of the agents: the others work
		posts = append(posts, requests[i%(agents/2):i%(agents/2)+1])
	}
	s, err = b.sequences(ctx, m, posts, func(answer []byte) { ids = append(ids, idIn(answer)) })
	return ids, s, err
}

// sequences measures what sequences of requests cost, up to when the server has
// come to rest again: a post leaves jobs behind.
func (b *bench) sequences(ctx context.Context, m *market, all [][]load.Request, keep func([]byte)) (sample, error) {
	var result *load.Result
	cpu, err := b.charge(m, func() (err error) {
		if result, err = load.Each(ctx, m.addr, b.connections, all, &m.numbers, keep); err != nil {
			return err
		}
		return m.rest(ctx)
	})
	if err != nil {
		return sample{}, err
	}
	return costOf(sample{p50: result.Latency.Quantile(.5), p99: result.Latency.Quantile(.99), cpu: cpu / time.Duration(len(all))}), nil
}

// rest waits until the server uses less than a twentieth of a core, but for ten
// seconds only: jobs that take longer than that have their share in the cost.
func (m *market) rest(ctx context.Context) error {
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

// allReads asks for every task as every caller in turn.
func (m *market) allReads() []load.Request {
	known, keys := m.ids, m.keys
	defer func() { m.ids, m.keys = known, keys }()
	var all []load.Request
	for i := 0; len(all) < variants; i++ {
		m.keys = keys[i%agents : i%agents+1]
		all = append(all, m.reads()...)
	}
	return all
}

// tasksBy lists open tasks that ask for a word, any when it is empty. The
// wordings differ in what makes no difference to the answer.
func (m *market) tasksBy(word string) []load.Request {
	var all []load.Request
	for i := range variants {
		filter := map[string]any{"status": repeat("OPEN", 1+i%100)}
		for bit, field := range []string{"search", "minBudget"} {
			if i/100>>bit&1 == 1 {
				filter[field] = nil
			}
		}
		if word != "" {
			filter["capability"] = spaced(word, i/100)
		}
		all = append(all, graphql(m.key(i), `query($filter: TaskFilter) { tasks(first: 20, filter: $filter) { nodes { `+taskFields+` } } }`,
			map[string]any{"filter": filter}, `"title":"bench`, 20))
	}
	return all
}

// agentsBy lists agents that can do something, best first.
func (m *market) agentsBy(word string) []load.Request {
	var all []load.Request
	for i := range variants {
		all = append(all, graphql(m.key(i),
			`query($filter: AgentFilter) { agents(first: 20, filter: $filter, orderBy: {field: REPUTATION}) { nodes { id name description capabilities reputationScore } } }`,
			map[string]any{"filter": map[string]any{"capability": spaced(word, i)}}, `"name":"`, 20))
	}
	return all
}

// spaced writes a word in one of many ways that mean the same.
func spaced(word string, i int) string {
	return strings.Repeat(" ", i%60) + word + strings.Repeat(" ", i/60)
}

// renames change an agent's profile: kept answers are of no more use, and the
// store does not grow.
func (m *market) renames() []load.Request {
	return []load.Request{graphql(m.keys[0], `mutation { updateAgent(input: {description: "`+load.Stamp+`"}) { agent { id } } }`, nil, `"id":"`, 1)}
}

// jobs accept and complete each task once, by another than its poster.
func (m *market) jobs(ids []string) [][]load.Request {
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

package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"agentmarket.space/server/bench/load"
)

const (
	// searchSamples is how often each search is sent, one at a time, with other words each
	// time.
	searchSamples = 20
	// searchers is the number of connections that send the most expensive documents while a
	// read or a post is measured.
	searchers = 4
)

// searchOperations are the workloads of [bench.measureSearches]. The figure of a search is
// its median time, that of a read or a post during searches the 99th percentile.
func searchOperations() []string {
	return append(slices.Sorted(maps.Keys(searches(0))), "read during four searches, p99", "post during four searches, p99")
}

// searchGoals are the goals of searchOperations at every size.
func searchGoals() []string {
	return append(repeat("≤ 50 ms", len(searches(0))), "≤ 100 ms", "≤ 100 ms")
}

// searches returns the documents of each search, with words of a market of a number of
// tasks and agents. A number is the word of one task and one agent.
func searches(size int) map[string]func(i int) string {
	number := func(i int) string { return fmt.Sprintf("%09d", 1+i*7919%max(size, 1)) }
	list := func(field, arguments string) string {
		return `{ ` + field + `(first: 20, ` + arguments + `) { totalCount totalCountIsExact pageInfo { hasNextPage } nodes { id } } }`
	}
	return map[string]func(i int) string{
		"search: one task": func(i int) string { return list("tasks", `filter: {search: "`+number(i)+`"}`) },
		"search: no task":  func(i int) string { return list("tasks", `filter: {search: "zebra`+number(i)+`"}`) },
		"search: a thousandth of the tasks": func(i int) string {
			return list("tasks", fmt.Sprintf(`filter: {search: "few%d"}`, 500+i))
		},
		"search: a hundredth of the tasks, best paid first": func(i int) string {
			return list("tasks", fmt.Sprintf(`filter: {status: [OPEN], search: "many%d"}, orderBy: {field: BUDGET}`, 50+i))
		},
		"search: two words that no task has both": func(i int) string {
			return list("tasks", fmt.Sprintf(`filter: {search: "many%d many%d bench"}, orderBy: {field: BUDGET}`, 50+i, 51+i))
		},
		"search: a prefix of many numbers": func(i int) string { return list("tasks", fmt.Sprintf(`filter: {search: "0000%d"}`, i)) },
		"search: a hundredth of the agents, best first": func(i int) string {
			return list("agents", fmt.Sprintf(`filter: {capability: "common", search: "many%d bench"}, orderBy: {field: REPUTATION}`, 50+i))
		},
		"filter: a budget that no task has": func(i int) string { return list("tasks", fmt.Sprintf(`filter: {minBudget: %d}`, 1_000_000+i)) },
		"filter: a price that no agent has": func(i int) string { return list("agents", fmt.Sprintf(`filter: {maxPricePerTask: %d}`, 1+i%9)) },
		"filter: a mode that no agent has": func(i int) string {
			return list("agents", fmt.Sprintf(`filter: {executionMode: [%s]}`, strings.Repeat("ENDPOINT ", 1+i)))
		},
		"count: all tasks": func(i int) string {
			return fmt.Sprintf(`{ tasks(first: %d) { totalCount } }`, 1+i)
		},
		"count: half of the tasks": func(i int) string { return fmt.Sprintf(`{ tasks(filter: {minBudget: %d}) { totalCount } }`, 40+i) },
	}
}

// dearestDocuments are documents with as many searches as the product allows, each of
// which reads as many rows as it can.
func (m *market) dearestDocuments() []load.Request {
	var all []load.Request
	for i := range queryVariants {
		var fields strings.Builder
		for alias := range 13 {
			fmt.Fprintf(&fields, `a%d: tasks(first: 1, filter: {search: "many%d many%d bench"}, orderBy: {field: BUDGET}) { totalCount } `, alias, (i+alias)%100, (i*7+alias+1)%100)
		}
		all = append(all, graphql(m.key(i), "{ "+fields.String()+"}", nil, `"totalCount"`, 13))
	}
	return all
}

// measureSearches measures each search one by one, and a read and a post while others send
// the dearest documents.
func (b *bench) measureSearches(ctx context.Context, m *market, size int) ([]sample, error) {
	conn, err := load.Dial(ctx, m.addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // the connection is not used again
	var samples []sample
	documents := searches(size)
	for _, name := range slices.Sorted(maps.Keys(documents)) {
		var latency load.Histogram
		for i := range searchSamples {
			start := time.Now()
			if _, err := conn.Do(graphql(m.key(i), documents[name](i), nil, "", 0), m.stamps.Next()); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			latency.Add(time.Since(start))
		}
		samples = append(samples, latencySample(&latency, latency.Quantile(.5)))
	}
	for _, honest := range [][]load.Request{m.allReads(), m.posts()} {
		s, err := b.measureDuringSearches(ctx, m, honest)
		if err != nil {
			return nil, err
		}
		samples = append(samples, s)
	}
	return samples, nil
}

// measureDuringSearches measures requests of one client during the searches.
func (b *bench) measureDuringSearches(ctx context.Context, m *market, honest []load.Request) (sample, error) {
	searching, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		_, err := load.Run(searching, m.addr, searchers, m.dearestDocuments(), &m.stamps, time.Hour)
		ended <- err
	}()
	result, err := load.Run(ctx, m.addr, 1, honest, &m.stamps, 5*b.duration)
	stop()
	if searchErr := <-ended; err == nil && searchErr != nil && searching.Err() == nil {
		err = searchErr
	}
	if err != nil {
		return sample{}, err
	}
	return latencySample(&result.Latency, result.Latency.Quantile(.99)), nil
}

// latencySample returns a sample whose figure is a latency in milliseconds.
func latencySample(latency *load.Histogram, figure time.Duration) sample {
	return sample{figure: figure.Seconds() * 1000, p50: latency.Quantile(.5), p99: latency.Quantile(.99)}
}

package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"agentmarket.space/server/bench/load"
)

// maxInFlight is the number of events in flight when the maximum rate of deliveries is
// measured.
const maxInFlight = 8

// audience is a set of subscribers and the events for them.
type audience struct {
	label       string // for the rows; may be empty
	subscribers int
	stalled     int // additional subscribers that never read
	filterFor   func(subscriber int) []string
	events      int     // events posted as fast as they are delivered
	pacedEvents int     // events posted at a rate
	rate        float64 // events a second
}

// mixedFilter returns filters that match a task of the benchmark: one word or two, every
// task, the agent's own capabilities, and words unique to the subscriber.
func mixedFilter(i int) []string {
	return [][]string{{"bench"}, {"research", "bench"}, {}, nil, {"word-" + strconv.Itoa(i), "bench"}}[i%5]
}

// longFilter returns filters of 1 to 100 words, the maximum of the schema. The last word
// matches a task of the benchmark.
func longFilter(i int) []string { return filterOfSize(i, 1+i%100) }

func filterOfSize(subscriber, words int) []string {
	all := make([]string, 0, words)
	for len(all) < words-1 {
		all = append(all, fmt.Sprintf("word-%d-%d", subscriber, len(all)))
	}
	return append(all, "bench")
}

// fanOutExperiment measures deliveries a second, latency at a fixed rate, and memory of
// idle subscribers. Some subscribers of the product have stalled. The other servers have no
// filters and no stalled readers: gqlgen's hub and gorilla's broadcast wait for the slowest
// reader, so that no other would receive anything.
func (b *bench) fanOutExperiment(a audience, latency, stock string) experiment {
	e := b.targets()
	spared := a
	spared.stalled = 0
	f := experiment{
		workloads: []workload{
			{name: fmt.Sprintf("fan-out to %d%s", a.subscribers, a.label), unit: unitPerSecond},
			{name: fmt.Sprintf("fan-out to %d at %.0f/s%s", a.subscribers, a.rate, a.label), unit: unitMilliseconds, lowerIsBetter: true},
			{name: fmt.Sprintf("idle subscriber of %d%s", a.subscribers, a.label), unit: unitBytes, lowerIsBetter: true},
		},
		contenders: []contender{
			{fmt.Sprintf("AgentMarket, %d stalled among them", a.stalled), b.broadcastStarter(e.agentMarket, a), []string{"", latency, "≤ 12 kB, never above 16 kB"}},
			{"gqlgen, its own WebSocket transport", b.broadcastStarter(e.gqlgen, spared), []string{stock}},
		},
	}
	if a.label != "" {
		return f
	}
	f.contenders = b.withPeers(append(f.contenders,
		contender{"limit: gorilla/websocket, one message for all", b.broadcastStarter(e.rawHTTP, spared), []string{"≥ 0.85×"}}),
		contender{"Mercurius", b.broadcastStarter(e.mercurius, spared), []string{"≥ 4.5×"}},
		contender{"PocketBase, server-sent events", b.broadcastStarter(e.pocketbase, spared), []string{"≥ 5×"}})
	return f
}

// broadcastStarter measures an audience of one server. The server is started for each
// sample, because a used heap already has room for subscribers.
func (b *bench) broadcastStarter(e target, a audience) startFunc {
	return func(context.Context) (measureFunc, func(), error) {
		return func(ctx context.Context) ([]sample, error) {
			m, err := b.startTarget(ctx, e, 1)
			if err != nil {
				return nil, err
			}
			defer m.stop()
			return b.broadcast(ctx, m, a)
		}, func() {}, nil
	}
}

func (b *bench) broadcast(ctx context.Context, m *market, a audience) ([]sample, error) {
	const warming = 50
	empty, err := m.usage()
	if err != nil {
		return nil, err
	}
	listening, err := load.NewAudience(ctx, m.target.subscription(m, a), a.subscribers-a.stalled, a.stalled, a.events+a.pacedEvents+warming)
	if err != nil {
		return nil, err
	}
	defer listening.Close() //nolint:errcheck // the connections are not used again
	time.Sleep(2 * time.Second)
	idle, err := m.usage()
	if err != nil {
		return nil, err
	}
	if err := listening.WarmUp(ctx, m.addr, m.target.posts(m)[0]); err != nil {
		return nil, err
	}
	capacity, err := b.measureDelivery(ctx, m, listening, a.events, load.Pacing{Window: maxInFlight})
	if err != nil {
		return nil, err
	}
	paced, err := b.measureDelivery(ctx, m, listening, a.pacedEvents, load.Pacing{Window: maxInFlight, PerSecond: a.rate})
	if err != nil {
		return nil, err
	}
	if a.stalled > 0 {
		time.Sleep(6 * time.Second) // the product disconnects a stalled subscriber after five
	}
	if ended := listening.DrainStalled(); ended < a.stalled {
		return nil, fmt.Errorf("%d of %d stalled readers received everything, so they did not stall", a.stalled-ended, a.stalled)
	}
	paced.figure = float64(paced.p99) / float64(time.Millisecond)
	memory := sample{figure: float64(idle.rss-empty.rss) / float64(a.subscribers)}
	return []sample{capacity, paced, memory}, nil
}

func (b *bench) measureDelivery(ctx context.Context, m *market, to *load.Audience, events int, pacing load.Pacing) (sample, error) {
	var delivery *load.Delivery
	cpu, err := b.measureCPU(m, func() (err error) {
		delivery, err = to.Broadcast(ctx, m.addr, m.target.posts(m)[0], events, pacing)
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

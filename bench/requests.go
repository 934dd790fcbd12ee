package main

import (
	"cmp"
	"context"
	"time"

	"agentmarket.space/server/bench/load"
)

type (
	requests = func(*market) []load.Request
	starter  = func(context.Context) (measure, func(), error)
)

// requests measures requests over b.connections, while some tasks a second are
// posted, so that nothing that was answered before may be answered again
// unlooked at.
func (b *bench) requests(e entrant, of requests, posts float64) starter {
	return func(ctx context.Context) (measure, func(), error) {
		m, err := b.open(ctx, e, openTasks)
		if err != nil {
			return nil, nil, err
		}
		asked := of(m)
		if _, err := load.Run(ctx, m.addr, b.connections, asked, &m.numbers, time.Second); err != nil {
			m.stop()
			return nil, nil, err
		}
		return func(ctx context.Context) ([]sample, error) {
			s, err := b.request(ctx, m, b.connections, asked, m.entrant.posts(m), posts)
			return []sample{s}, err
		}, m.stop, nil
	}
}

// request measures requests while others are sent at a pace.
func (b *bench) request(ctx context.Context, m *market, connections int, asked, beside []load.Request, perSecond float64) (sample, error) {
	pacing, stop := context.WithCancel(ctx)
	type pace struct {
		answered int64
		err      error
	}
	paced := make(chan pace, 1)
	go func() {
		const each = 50 // posts a second on a connection: they wait for the disk
		answered, err := load.Pace(pacing, m.addr, 1+int(perSecond)/each, beside, &m.numbers, perSecond)
		paced <- pace{answered, err}
	}()
	var result *load.Result
	cpu, err := b.charge(m, func() (err error) {
		result, err = load.Run(ctx, m.addr, connections, asked, &m.numbers, b.duration)
		return err
	})
	stop()
	other := <-paced
	if err := cmp.Or(err, other.err); err != nil {
		return sample{}, err
	}
	n := result.Latency.Count()
	return sample{
		figure: float64(n) / result.Elapsed.Seconds(),
		p50:    result.Latency.Quantile(.5),
		p99:    result.Latency.Quantile(.99),
		cpu:    cpu / time.Duration(n),
		posts:  float64(other.answered) / result.Elapsed.Seconds(),
	}, nil
}

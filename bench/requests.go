package main

import (
	"cmp"
	"context"
	"time"

	"agentmarket.space/server/bench/load"
)

type (
	requestsFunc = func(*market) []load.Request
	startFunc    = func(context.Context) (measureFunc, func(), error)
)

// requestStarter measures requests over b.connections while tasks are posted in the
// background, so that cached responses are invalidated.
func (b *bench) requestStarter(e target, requestsOf requestsFunc, posts float64) startFunc {
	return func(ctx context.Context) (measureFunc, func(), error) {
		m, err := b.startTarget(ctx, e, openTasks)
		if err != nil {
			return nil, nil, err
		}
		requests := requestsOf(m)
		if _, err := load.Run(ctx, m.addr, b.connections, requests, &m.stamps, time.Second); err != nil {
			m.stop()
			return nil, nil, err
		}
		return func(ctx context.Context) ([]sample, error) {
			s, err := b.measureRequests(ctx, m, b.connections, requests, m.target.posts(m), posts)
			return []sample{s}, err
		}, m.stop, nil
	}
}

// measureRequests measures requests while others are sent at a rate.
func (b *bench) measureRequests(ctx context.Context, m *market, connections int, requests, background []load.Request, perSecond float64) (sample, error) {
	pacing, stop := context.WithCancel(ctx)
	type pace struct {
		answered int64
		err      error
	}
	paced := make(chan pace, 1)
	go func() {
		const each = 50 // posts a second on a connection, since posts wait for the disk
		responses, err := load.Pace(pacing, m.addr, 1+int(perSecond)/each, background, &m.stamps, perSecond)
		paced <- pace{responses, err}
	}()
	var result *load.Result
	cpu, err := b.measureCPU(m, func() (err error) {
		result, err = load.Run(ctx, m.addr, connections, requests, &m.stamps, b.duration)
		return err
	})
	stop()
	other := <-paced
	if err := cmp.Or(err, other.err); err != nil {
		return sample{}, err
	}
	n := result.Latency.Count()
	return sample{
		figure:         float64(n) / result.Elapsed.Seconds(),
		p50:            result.Latency.Quantile(.5),
		p99:            result.Latency.Quantile(.99),
		cpu:            cpu / time.Duration(n),
		postsPerSecond: float64(other.answered) / result.Elapsed.Seconds(),
	}, nil
}

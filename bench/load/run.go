package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// StampCounter issues the stamps of a run. The zero value starts at 1.
type StampCounter struct{ last atomic.Int64 }

// Next returns the next number.
func (n *StampCounter) Next() int64 { return n.last.Add(1) }

// Result is the result of a run of requests.
type Result struct {
	Elapsed time.Duration
	Latency Histogram
}

// Run sends random requests over a number of connections for a duration. Each connection
// sends its next request after the last response. The first wrong response ends the run
// with an error.
func Run(ctx context.Context, addr string, connections int, requests []Request, numbers *StampCounter, d time.Duration) (*Result, error) {
	if len(requests) == 0 {
		return nil, errors.New("no requests to send")
	}
	var (
		result Result
		mu     sync.Mutex
	)
	group, ctx := errgroup.WithContext(ctx)
	conns := make([]*Connection, connections)
	for i := range conns {
		conn, err := Dial(ctx, addr)
		if err != nil {
			return nil, fmt.Errorf("connection %d: %w", i+1, err)
		}
		defer conn.Close() //nolint:errcheck // the connection is not used again
		conns[i] = conn
	}
	start := time.Now()
	for _, conn := range conns {
		group.Go(func() error {
			var latency Histogram
			for t := start; t.Sub(start) < d && ctx.Err() == nil; {
				if _, err := conn.Do(requests[rand.IntN(len(requests))], numbers.Next()); err != nil {
					return err
				}
				response := time.Now()
				latency.Add(response.Sub(t))
				t = response
			}
			mu.Lock()
			defer mu.Unlock()
			result.Latency.Merge(&latency)
			return ctx.Err()
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	result.Elapsed = time.Since(start)
	return &result, nil
}

// Pace sends requests at an even rate over a number of connections until ctx is done, which
// is not an error, and returns the number of responses. A server that is too slow for the
// rate gets fewer.
func Pace(ctx context.Context, addr string, connections int, requests []Request, numbers *StampCounter, perSecond float64) (response int64, err error) {
	var sent atomic.Int64
	var group errgroup.Group
	onConnections(ctx, &group, addr, connections, func(conn *Connection) error {
		ticker := time.NewTicker(time.Duration(float64(connections) / perSecond * float64(time.Second)))
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
				if _, err := conn.Do(requests[rand.IntN(len(requests))], numbers.Next()); err != nil {
					return err
				}
				sent.Add(1)
			}
		}
	})
	err = group.Wait()
	return sent.Load(), err
}

// onConnections calls do in the group for each of a number of connections.
func onConnections(ctx context.Context, group *errgroup.Group, addr string, connections int, do func(*Connection) error) {
	for range connections {
		group.Go(func() error {
			conn, err := Dial(ctx, addr)
			if err != nil {
				return err
			}
			defer conn.Close() //nolint:errcheck // the connection is not used again
			return do(conn)
		})
	}
}

// RunSequences sends every sequence of requests once over a number of connections, the
// requests of each in order. Latency is that of a whole sequence. keep, if not nil, gets
// the response to the last request of each.
func RunSequences(ctx context.Context, addr string, connections int, sequences [][]Request, numbers *StampCounter, keep func(answer []byte)) (*Result, error) {
	var (
		result Result
		mu     sync.Mutex
		next   atomic.Int64
	)
	group, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	onConnections(ctx, group, addr, connections, func(conn *Connection) error {
		for ctx.Err() == nil {
			i := int(next.Add(1)) - 1
			if i >= len(sequences) {
				return nil
			}
			began := time.Now()
			var answer []byte
			for _, request := range sequences[i] {
				var err error
				if answer, err = conn.Do(request, numbers.Next()); err != nil {
					return err
				}
			}
			took := time.Since(began)
			mu.Lock()
			result.Latency.Add(took)
			if keep != nil {
				keep(answer)
			}
			mu.Unlock()
		}
		return ctx.Err()
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	result.Elapsed = time.Since(start)
	return &result, nil
}

package executor

import (
	"context"
	"testing"
	"testing/synctest"
)

// TestLimiter checks the limits per hirer, per hired agent and in total, and
// that a released slot leaves no state behind.
func TestLimiter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(2*maxRunsPerAgent + 1)
		var releases []func()
		acquire := func(hirer, agent string) bool {
			ctx, cancel := context.WithCancel(t.Context())
			acquired := make(chan bool, 1)
			go func() {
				release, ok := l.acquire(ctx, hirer, agent)
				if ok {
					releases = append(releases, release)
				}
				acquired <- ok
			}()
			synctest.Wait()
			cancel()
			return <-acquired
		}
		for i := range maxRunsPerAgent {
			if !acquire("hirer", "agent") {
				t.Errorf("no slot for run %d", i)
			}
		}
		if acquire("hirer", "another agent") || acquire("another hirer", "agent") {
			t.Error("a hirer or an agent got more slots than maxRunsPerAgent")
		}
		for i := range maxRunsPerAgent + 1 {
			if want := i < maxRunsPerAgent; acquire("another hirer", "another agent") != want {
				t.Errorf("run %d of another hirer and agent: got slot %t, want %t", i, !want, want)
			}
		}
		if !acquire("third", "third") || acquire("fourth", "fourth") {
			t.Error("the number of slots is not the total limit")
		}
		for _, release := range releases {
			release()
		}
		if l.hirers.Keys() != 0 || l.agents.Keys() != 0 || len(l.slots) != 0 {
			t.Errorf("%d hirers, %d agents and %d slots are left", l.hirers.Keys(), l.agents.Keys(), len(l.slots))
		}
	})
}

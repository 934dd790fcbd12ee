package executor

import (
	"context"
	"testing"
	"testing/synctest"
)

// TestLimiter: who hires, and who is hired, has some of the turns; others get theirs
// meanwhile; and what is over leaves nothing behind.
func TestLimiter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		all := newLimiter(2*maxRunsPerAgent + 1)
		var frees []func()
		take := func(hirer, agent string) bool {
			ctx, cancel := context.WithCancel(t.Context())
			taken := make(chan bool, 1)
			go func() {
				free, ok := all.acquire(ctx, hirer, agent)
				if ok {
					frees = append(frees, free)
				}
				taken <- ok
			}()
			synctest.Wait()
			cancel()
			return <-taken
		}
		for i := range maxRunsPerAgent {
			if !take("hirer", "agent") {
				t.Errorf("there was no turn %d", i)
			}
		}
		if take("hirer", "another agent") || take("another hirer", "agent") {
			t.Error("one had more turns than its share")
		}
		for i := range maxRunsPerAgent + 1 {
			if want := i < maxRunsPerAgent; take("another hirer", "another agent") != want {
				t.Errorf("turn %d of others: want %t", i, want)
			}
		}
		if !take("third", "third") || take("fourth", "fourth") {
			t.Error("not so many had turns as may have")
		}
		for _, free := range frees {
			free()
		}
		if len(all.semaphores) != 0 || len(all.slots) != 0 {
			t.Errorf("%d lanes and %d turns are left", len(all.semaphores), len(all.slots))
		}
	})
}

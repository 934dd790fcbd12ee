package client

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestBackoff checks that delays double up to the maximum, start over after reset, and
// end with the context.
func TestBackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var pause backoff
		expect := func(want time.Duration) {
			t.Helper()
			start := time.Now()
			if !pause.wait(ctx) || time.Since(start) != want {
				t.Errorf("waited %s, want %s", time.Since(start), want)
			}
		}
		for _, milliseconds := range []int{500, 1000, 2000, 4000, 8000, 10_000, 10_000} {
			expect(time.Duration(milliseconds) * time.Millisecond)
		}
		pause.reset()
		expect(minBackoff)
		cancel()
		if pause.wait(ctx) {
			t.Error("wait reports an active context after cancel")
		}
	})
}

// TestRetryUntilDone checks that all attempts share one Idempotency-Key.
func TestRetryUntilDone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		keys := map[any]int{}
		attempts := 0
		response, err := retryUntilDone(t.Context(), func(ctx context.Context) (*int, error) {
			keys[ctx.Value(idempotencyContextKey{})]++
			if attempts++; attempts < 3 {
				return nil, errors.New("connection reset")
			}
			return &attempts, nil
		})
		if err != nil || *response != 3 || len(keys) != 1 {
			t.Errorf("got %d attempts with %d keys: %v", attempts, len(keys), err)
		}
	})
}

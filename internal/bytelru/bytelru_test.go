package bytelru_test

import (
	"testing"

	"pgregory.net/rapid"

	"agentmarket.space/server/internal/bytelru"
	"agentmarket.space/server/internal/test/testutil"
)

// TestLRU_limits checks with random operations that the limits hold and that Bytes is the
// sum of the sizes.
func TestLRU_limits(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		const maxEntries, maxBytes = 4, 100
		l, err := bytelru.New[int, int](maxEntries, maxBytes)
		if err != nil {
			r.Fatal(err)
		}
		for range rapid.IntRange(1, 50).Draw(r, "operations") {
			key := rapid.IntRange(0, 6).Draw(r, "key")
			switch rapid.IntRange(0, 3).Draw(r, "operation") {
			case 0:
				l.Remove(key)
			case 1:
				l.Get(key)
			default:
				size := rapid.IntRange(0, 120).Draw(r, "size")
				l.Set(key, size, size)
				if got, ok := l.Peek(key); ok != (size <= maxBytes) || got != size && ok {
					r.Fatalf("stored %d bytes, got %d, %t", size, got, ok)
				}
			}
			sum := 0
			for key := range 7 {
				size, _ := l.Peek(key)
				sum += size
			}
			if l.Len() > maxEntries || l.Bytes() > maxBytes || l.Bytes() != sum {
				r.Fatalf("%d entries of %d bytes, counted as %d", l.Len(), sum, l.Bytes())
			}
		}
	})
}

// TestLRU_evictsLeastRecentlyUsed checks which entry makes room for another.
func TestLRU_evictsLeastRecentlyUsed(t *testing.T) {
	t.Parallel()
	l, err := bytelru.New[string, int](2, 10)
	testutil.Must(t, err)
	l.Set("a", 1, 1)
	l.Set("b", 2, 1)
	l.Get("a")
	l.Set("c", 3, 1)
	if _, ok := l.Peek("b"); ok {
		t.Error("b is still there")
	}
	l.Set("c", 3, 10)
	if _, ok := l.Peek("a"); ok || l.Len() != 1 {
		t.Errorf("a is still there: %t; %d entries", ok, l.Len())
	}
}

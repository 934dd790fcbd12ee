package load

import (
	"testing"
	"time"
)

func TestHistogram(t *testing.T) {
	t.Parallel()
	var first, second Histogram
	for i := range 10_000 {
		h := &first
		if i%2 == 1 {
			h = &second
		}
		h.Add(time.Duration(i+1) * time.Microsecond)
	}
	first.Merge(&second)
	if first.Count() != 10_000 || first.Max() != 10*time.Millisecond {
		t.Errorf("count %d, max %s", first.Count(), first.Max())
	}
	for q, want := range map[float64]time.Duration{0: time.Microsecond, .5: 5 * time.Millisecond, .99: 9900 * time.Microsecond, 1: 10 * time.Millisecond} {
		if got := first.Quantile(q); got < want*98/100 || got > want*102/100 {
			t.Errorf("quantile %v is %s, want about %s", q, got, want)
		}
	}
	var empty Histogram
	if empty.Quantile(.5) != 0 {
		t.Error("an empty histogram has a quantile")
	}
}

func TestHistogram_bucketWidth(t *testing.T) {
	t.Parallel()
	for d := time.Duration(1); d < 10*time.Minute; d = d*5/4 + 1 {
		if middle := bucketMiddle(bucketIndex(d)); middle < d*98/100-1 || middle > d*102/100+1 {
			t.Errorf("%d is counted as %d", d, middle)
		}
	}
}

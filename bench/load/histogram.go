package load

import (
	"math/bits"
	"time"
)

// Histogram counts durations in buckets of 1/64 of a power of two, so that a quantile is
// accurate to 1.6 %.
type Histogram struct {
	count   int64
	largest time.Duration
	buckets [bucketsPerDoubling * 40]int64
}

const bucketsPerDoubling = 64

// Add counts one duration.
func (h *Histogram) Add(d time.Duration) {
	h.count++
	h.largest = max(h.largest, d)
	h.buckets[bucketIndex(d)]++
}

// Merge adds the counts of other.
func (h *Histogram) Merge(other *Histogram) {
	h.count += other.count
	h.largest = max(h.largest, other.largest)
	for i, n := range other.buckets {
		h.buckets[i] += n
	}
}

// Count returns the number of durations.
func (h *Histogram) Count() int64 { return h.count }

// Max returns the largest duration.
func (h *Histogram) Max() time.Duration { return h.largest }

// Quantile returns the duration below which the fraction q of all lies, or 0 without any.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := int64(q * float64(h.count-1))
	for i, n := range h.buckets {
		if rank -= n; rank < 0 {
			return min(bucketMiddle(i), h.largest)
		}
	}
	return h.largest
}

func bucketIndex(d time.Duration) int {
	if d < bucketsPerDoubling {
		return int(max(d, 0))
	}
	// d>>shift lies in [steps, 2*steps).
	shift := bits.Len64(uint64(d)) - bits.Len64(bucketsPerDoubling)
	return min((shift+1)*bucketsPerDoubling+int(d>>shift)-bucketsPerDoubling, bucketsPerDoubling*40-1)
}

func bucketMiddle(bucket int) time.Duration {
	if bucket < bucketsPerDoubling {
		return time.Duration(bucket)
	}
	shift := bucket/bucketsPerDoubling - 1
	return time.Duration(bucket%bucketsPerDoubling+bucketsPerDoubling)<<shift + (1<<shift)/2
}

package graph

import (
	"testing"

	"agentmarket.space/server/internal/test/testutil"
)

// TestPayloadCache_bounds: however many answers there are and however large, what is kept stays
// within its bounds, and what is counted is what is kept.
func TestPayloadCache_bounds(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ times, size, kept int }{
		"small ones":         {2 * maxPayloads, 100, maxPayloads},
		"ones with nothing":  {2 * maxPayloads, 0, maxPayloads},
		"the largest":        {2 * maxPayloads, maxPayloadBytes, maxPayloadCacheBytes / maxPayloadBytes},
		"ones too large for": {10, maxPayloadBytes + 1, 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := newPayloadCache()
			testutil.Must(t, err)
			late := r.getOrCreate(payloadKey{}) // dropped before it is rendered
			shared := row.size <= maxPayloadBytes
			for i := range row.times {
				key := payloadKey{eventSeq: int64(i + 1)}
				answer := r.getOrCreate(key)
				if r.isRendered(key) {
					t.Fatal("an answer is at hand before it was rendered")
				}
				r.store(key, answer, make([]byte, row.size))
				if !r.isRendered(key) || r.getOrCreate(key) != answer || (answer.payload != nil) != shared {
					t.Fatalf("answer %d has %d bytes, shared: %t", i, len(answer.payload), shared)
				}
				if r.totalBytes > maxPayloadCacheBytes {
					t.Fatalf("%d bytes are kept", r.totalBytes)
				}
			}
			if row.times > maxPayloads {
				r.store(payloadKey{}, late, make([]byte, maxPayloadBytes))
			}
			r.entries.Remove(payloadKey{})
			sum := 0
			for _, answer := range r.entries.Values() {
				sum += len(answer.payload)
			}
			if r.entries.Len() != row.kept || r.totalBytes != sum {
				t.Errorf("%d answers of %d bytes are kept, want %d; %d bytes are counted", r.entries.Len(), sum, row.kept, r.totalBytes)
			}
		})
	}
}

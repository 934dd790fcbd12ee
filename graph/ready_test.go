package graph

import "testing"

// TestReady: however many answers there are and however large, what is kept stays
// within its bounds, and what is counted is what is kept.
func TestReady(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ times, size, kept int }{
		"small ones":         {2 * maxReady, 100, maxReady},
		"ones with nothing":  {2 * maxReady, 0, maxReady},
		"the largest":        {2 * maxReady, maxReadyPayload, maxReadyBytes / maxReadyPayload},
		"ones too large for": {10, maxReadyPayload + 1, 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := newReady()
			must(t, err)
			late := r.get(answerKey{}) // dropped before it is rendered
			shared := row.size <= maxReadyPayload
			for i := range row.times {
				key := answerKey{seq: int64(i + 1)}
				answer := r.get(key)
				if r.has(key) {
					t.Fatal("an answer is at hand before it was rendered")
				}
				r.settle(key, answer, make([]byte, row.size))
				if !r.has(key) || r.get(key) != answer || (answer.payload != nil) != shared {
					t.Fatalf("answer %d has %d bytes, shared: %t", i, len(answer.payload), shared)
				}
				if r.bytes > maxReadyBytes {
					t.Fatalf("%d bytes are kept", r.bytes)
				}
			}
			if row.times > maxReady {
				r.settle(answerKey{}, late, make([]byte, maxReadyPayload))
			}
			r.kept.Remove(answerKey{})
			sum := 0
			for _, answer := range r.kept.Values() {
				sum += len(answer.payload)
			}
			if r.kept.Len() != row.kept || r.bytes != sum {
				t.Errorf("%d answers of %d bytes are kept, want %d; %d bytes are counted", r.kept.Len(), sum, row.kept, r.bytes)
			}
		})
	}
}

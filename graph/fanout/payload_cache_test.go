package fanout

import (
	"testing"

	"agentmarket.space/server/internal/test/testutil"
)

// TestPayloadCache_limits checks the limits on entries and bytes, and that the counted
// bytes are those of the cached payloads.
func TestPayloadCache_limits(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct{ count, size, cached int }{
		"small payloads":    {2 * maxPayloads, 100, maxPayloads},
		"empty payloads":    {2 * maxPayloads, 0, maxPayloads},
		"largest payloads":  {2 * maxPayloads, maxPayloadBytes, maxPayloadCacheBytes / maxPayloadBytes},
		"oversize payloads": {10, maxPayloadBytes + 1, 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := newPayloadCache()
			testutil.Must(t, err)
			evicted := c.getOrCreate(payloadKey{}) // before it is rendered
			shared := row.size <= maxPayloadBytes
			for i := range row.count {
				key := payloadKey{eventSeq: int64(i + 1)}
				entry := c.getOrCreate(key)
				if c.isRendered(key) {
					t.Fatal("a payload is ready before it was rendered")
				}
				c.store(key, entry, make([]byte, row.size))
				if !c.isRendered(key) || c.getOrCreate(key) != entry || (entry.payload != nil) != shared {
					t.Fatalf("payload %d has %d bytes, shared: %t", i, len(entry.payload), shared)
				}
				if c.entries.Bytes() > maxPayloadCacheBytes {
					t.Fatalf("%d bytes are cached", c.entries.Bytes())
				}
			}
			if row.count > maxPayloads {
				c.store(payloadKey{}, evicted, make([]byte, maxPayloadBytes))
			}
			c.entries.Remove(payloadKey{})
			sum := 0
			for i := range row.count {
				if entry, ok := c.entries.Peek(payloadKey{eventSeq: int64(i + 1)}); ok {
					sum += len(entry.payload)
				}
			}
			if c.entries.Len() != row.cached || c.entries.Bytes() != sum {
				t.Errorf("%d payloads of %d bytes, want %d; counted as %d bytes", c.entries.Len(), sum, row.cached, c.entries.Bytes())
			}
		})
	}
}

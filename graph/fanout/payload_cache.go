package fanout

import (
	"sync"

	"agentmarket.space/server/graph/operation"
	"agentmarket.space/server/internal/bytelru"
)

// Memory limits of shared payloads. A document can select megabytes of one task; such
// payloads are not shared. There is room for 335 tasks with the longest description
// (50 kB), more than the events that a feed queues for a subscriber (256).
const (
	maxPayloads          = 1024
	maxPayloadBytes      = 64 << 10 // of one payload
	maxPayloadCacheBytes = 16 << 20 // of all payloads
)

// payloadCache holds the payloads that were used most recently.
type payloadCache struct {
	mu      sync.Mutex
	entries *bytelru.LRU[payloadKey, *payloadEntry]
}

// payloadKey identifies the payload of an event for a group. Only live events share
// payloads: the task of a replayed event may have changed in between.
type payloadKey struct {
	group    operation.Hash
	eventSeq int64
}

// payloadEntry is a payload, which the first caller renders.
type payloadEntry struct {
	once     sync.Once
	payload  []byte // nil if it is not shared; set by once
	rendered bool   // guarded by payloadCache.mu
}

func newPayloadCache() (*payloadCache, error) {
	entries, err := bytelru.New[payloadKey, *payloadEntry](maxPayloads, maxPayloadCacheBytes)
	return &payloadCache{entries: entries}, err
}

// getOrCreate returns the entry of a key.
func (c *payloadCache) getOrCreate(key payloadKey) *payloadEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry, ok := c.entries.Get(key)
	if !ok {
		entry = &payloadEntry{}
		c.entries.Set(key, entry, 0)
	}
	return entry
}

// isRendered reports whether the payload of a key is rendered and still cached.
func (c *payloadCache) isRendered(key payloadKey) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry, ok := c.entries.Peek(key)
	return ok && entry.rendered
}

// store sets the payload of an entry, nil after an error. A payload over the limit is
// dropped.
func (c *payloadCache) store(key payloadKey, entry *payloadEntry, payload []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry.rendered = true
	if len(payload) > maxPayloadBytes {
		return
	}
	entry.payload = payload
	if cached, _ := c.entries.Peek(key); cached == entry { // not evicted yet
		c.entries.Set(key, entry, len(payload))
	}
}

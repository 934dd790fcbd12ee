package graph

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// What shared answers may take of the memory, whatever strangers subscribe with. A
// document can make megabytes of one task: those are not shared. Of tasks with the
// longest description (50 kB) there is room for 335, which is more than wait for
// any subscriber (256).
const (
	maxPayloads          = 1024
	maxPayloadBytes      = 64 << 10 // bytes of one
	maxPayloadCacheBytes = 16 << 20 // of all
)

// payloadCache keeps the answers that were used last.
type payloadCache struct {
	mu         sync.Mutex
	entries    *simplelru.LRU[payloadKey, *payloadEntry]
	totalBytes int
}

// payloadKey names an answer: to a document, for the event with a cursor. Only who
// hears of events as they happen shares them; one that reads an event from the
// log has its own, since its task may have moved on.
type payloadKey struct {
	operationKey operationKey
	eventSeq     int64
}

// payloadEntry is rendered by the first who asks for it.
type payloadEntry struct {
	once    sync.Once
	payload []byte // nil when it is not shared; see settle

	rendered bool // guarded by ready.mu, as what follows
	size     int  // bytes that are counted
}

func newPayloadCache() (*payloadCache, error) {
	r := &payloadCache{}
	kept, err := simplelru.NewLRU(maxPayloads, func(_ payloadKey, gone *payloadEntry) { r.totalBytes -= gone.size })
	r.entries = kept
	return r, err
}

// getOrCreate returns what is or will be the answer of a key.
func (r *payloadCache) getOrCreate(key payloadKey) *payloadEntry {
	r.mu.Lock()
	defer r.mu.Unlock()
	answer, found := r.entries.Get(key)
	if !found {
		answer = &payloadEntry{}
		r.entries.Add(key, answer)
	}
	return answer
}

// isRendered reports whether the answer of a key is at hand.
func (r *payloadCache) isRendered(key payloadKey) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	answer, found := r.entries.Peek(key)
	return found && answer.rendered
}

// store notes how an answer was rendered, nil for not at all. It is not shared
// then, and neither is a large one: whoever asks is answered alone.
func (r *payloadCache) store(key payloadKey, answer *payloadEntry, payload []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	answer.rendered = true
	if len(payload) > maxPayloadBytes {
		return
	}
	answer.payload = payload
	if kept, _ := r.entries.Peek(key); kept != answer {
		return // it was dropped meanwhile
	}
	answer.size = len(payload)
	for r.totalBytes += answer.size; r.totalBytes > maxPayloadCacheBytes; {
		r.entries.RemoveOldest()
	}
}

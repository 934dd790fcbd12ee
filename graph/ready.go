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
	maxReady        = 1024
	maxReadyPayload = 64 << 10 // bytes of one
	maxReadyBytes   = 16 << 20 // of all
)

// ready keeps the answers that were used last.
type ready struct {
	mu    sync.Mutex
	kept  *simplelru.LRU[answerKey, *sharedAnswer]
	bytes int
}

// answerKey names an answer: to a document, for the event with a cursor. Only who
// hears of events as they happen shares them; one that reads an event from the
// log has its own, since its task may have moved on.
type answerKey struct {
	document document
	seq      int64
}

// sharedAnswer is rendered by the first who asks for it.
type sharedAnswer struct {
	once    sync.Once
	payload []byte // nil when it is not shared; see settle

	done bool // guarded by ready.mu, as what follows
	size int  // bytes that are counted
}

func newReady() (*ready, error) {
	r := &ready{}
	kept, err := simplelru.NewLRU(maxReady, func(_ answerKey, gone *sharedAnswer) { r.bytes -= gone.size })
	r.kept = kept
	return r, err
}

// get returns what is or will be the answer of a key.
func (r *ready) get(key answerKey) *sharedAnswer {
	r.mu.Lock()
	defer r.mu.Unlock()
	answer, found := r.kept.Get(key)
	if !found {
		answer = &sharedAnswer{}
		r.kept.Add(key, answer)
	}
	return answer
}

// has reports whether the answer of a key is at hand.
func (r *ready) has(key answerKey) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	answer, found := r.kept.Peek(key)
	return found && answer.done
}

// settle notes how an answer was rendered, nil for not at all. It is not shared
// then, and neither is a large one: whoever asks is answered alone.
func (r *ready) settle(key answerKey, answer *sharedAnswer, payload []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	answer.done = true
	if len(payload) > maxReadyPayload {
		return
	}
	answer.payload = payload
	if kept, _ := r.kept.Peek(key); kept != answer {
		return // it was dropped meanwhile
	}
	answer.size = len(payload)
	for r.bytes += answer.size; r.bytes > maxReadyBytes; {
		r.kept.RemoveOldest()
	}
}

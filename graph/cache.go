package graph

import (
	"context"
	"crypto/sha256"
	"sync"
	"sync/atomic"

	"github.com/99designs/gqlgen/graphql"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/hashicorp/golang-lru/v2/simplelru"

	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// What answers may take of the memory: 32 MiB of bodies and, at some 300 bytes an
// entry with its key, 5 MiB beside them; the requests that are known as much
// again. One body is a page of a hundred tasks of half a kilobyte at most.
const (
	maxEntries       = 16 << 10
	maxEntryBytes    = 64 << 10 // of one body
	maxCacheBytes    = 32 << 20 // of all
	maxKnownRequests = 16 << 10
)

// Cache keeps the finished bytes that reads were answered with, for as long as
// they are exactly what the reads would be answered again. One that was found by
// its id lasts until that is written to, any other until anything is; and either
// until time alone moves on a task that it shows. GraphQL and REST share one.
// Where other processes write to the store too, nothing is kept. It is safe for
// concurrent use, and a nil one keeps nothing.
type Cache struct {
	// Meter is told of GraphQL requests that are answered before they are decoded; it
	// may be nil.
	Meter Meter

	market   *market.Market
	requests *lru.Cache[transport.RequestHash, operationInfo] // GraphQL requests that were answered before

	hits, misses atomic.Int64 // reads

	mu         sync.Mutex
	entries    *simplelru.LRU[Key, *cacheEntry]
	totalBytes int
}

// Key is the same for reads that are answered alike.
type Key struct {
	hash    [sha256.Size]byte
	agentID string // empty when it does not matter who asks, and for strangers
}

// KeyFor names a read by what was asked and, when that matters, by who asks.
func KeyFor(ctx context.Context, what string, personal bool) Key {
	return (operationInfo{hash: sha256.Sum256([]byte(what)), private: personal}).key(ctx)
}

// operationInfo is what has been found out about a GraphQL request: what it asks, and
// whether it matters who does.
type operationInfo struct {
	hash      [sha256.Size]byte
	private   bool
	rootField RootField
}

func (k operationInfo) key(ctx context.Context) Key {
	q := Key{hash: k.hash}
	if k.private {
		actor, _ := auth.FromContext(ctx)
		q.agentID = actor.AgentID
	}
	return q
}

// Response is a finished answer.
type Response struct {
	Body      []byte
	Link      string          // REST: the header of that name
	Balance   *models.Credits // REST: the caller's, nil when Body was made without it
	Err       error           // what is answered in place of a body; never kept
	Cacheable bool            // whether the same question may be answered with it

	graphqlResponse *graphql.Response // GraphQL: what Body was rendered from, or what there is in its place
}

// cacheEntry is where an answer is kept or is going to be.
type cacheEntry struct {
	window    market.ValidityWindow // that it was begun in
	done      chan struct{}
	response  *Response       // nil when there is none to keep; written before settled is closed
	readSet   *market.ReadSet // what the answer went by
	abandoned bool            // whether there is none because the one who was to make it went away
}

// NewCache returns a store of answers about a market.
func NewCache(m *market.Market) (*Cache, error) {
	requests, err := lru.New[transport.RequestHash, operationInfo](maxKnownRequests)
	if err != nil {
		return nil, err
	}
	a := &Cache{market: m, requests: requests}
	a.entries, err = simplelru.NewLRU(maxEntries, func(_ Key, p *cacheEntry) {
		if p.response != nil {
			a.totalBytes -= len(p.response.Body)
		}
	})
	return a, err
}

// Get returns the answer to a question: the one that is kept, or the one that
// answer makes. Who asks the same meanwhile waits for it.
func (a *Cache) Get(ctx context.Context, q Key, answer func(context.Context) *Response) *Response {
	if kept := a.getValid(ctx, q); kept != nil {
		return kept
	}
	if a != nil {
		answer = a.countExecutions(answer)
	}
	epoch, ok := a.currentWindow(ctx) // before anything is read
	if !ok {
		return answer(ctx)
	}
	for {
		p, mine := a.reserve(epoch, q)
		if mine {
			return a.fill(ctx, q, p, answer)
		}
		select {
		case <-p.done:
		case <-ctx.Done():
			return answer(ctx) // which says so
		}
		if p.response != nil {
			a.hits.Add(1)
			return p.response
		}
		if !p.abandoned { // it is a refusal, and this caller's may read otherwise
			return answer(ctx)
		}
	}
}

// currentWindow returns the present epoch when there is one to keep answers of.
func (a *Cache) currentWindow(ctx context.Context) (epoch market.ValidityWindow, ok bool) {
	if a == nil {
		return epoch, false
	}
	epoch, err := a.market.ValidityWindow(ctx)
	return epoch, err == nil && epoch.Cacheable()
}

// getValid returns the answer that is kept to a question, nil when there is none that
// lasts.
func (a *Cache) getValid(ctx context.Context, q Key) *Response {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	p, _ := a.entries.Get(q)
	if p == nil || p.response == nil {
		a.mu.Unlock()
		return nil
	}
	a.mu.Unlock()
	if !a.market.StillValid(ctx, p.readSet) {
		return nil
	}
	a.hits.Add(1)
	return p.response
}

// countExecutions is what makes an answer, and counts it.
func (a *Cache) countExecutions(answer func(context.Context) *Response) func(context.Context) *Response {
	return func(ctx context.Context) *Response {
		a.misses.Add(1)
		return answer(ctx)
	}
}

// Counts returns how many reads were answered from memory so far, those that waited
// for another's answer among them, and how many were executed.
func (a *Cache) Counts() (remembered, executed int64) {
	return a.hits.Load(), a.misses.Load()
}

// reserve returns the place of an answer that is begun in an epoch, and whether it
// is the caller's to fill.
func (a *Cache) reserve(epoch market.ValidityWindow, q Key) (p *cacheEntry, mine bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p, taken := a.entries.Get(q); taken && p.window == epoch {
		return p, false
	}
	a.entries.Remove(q)
	p = &cacheEntry{window: epoch, done: make(chan struct{})}
	a.entries.Add(q, p)
	return p, true
}

// fill makes the answer of a place and lets those have it that wait for it.
func (a *Cache) fill(ctx context.Context, q Key, p *cacheEntry, answer func(context.Context) *Response) *Response {
	var made *Response
	looking, sight := a.market.TrackReads(ctx, p.window)
	defer func() { a.finish(q, p, made, sight, ctx.Err() != nil) }() // after a panic too
	made = answer(looking)
	return made
}

// finish keeps what was made of an answer, which is nothing after a panic.
func (a *Cache) finish(q Key, p *cacheEntry, made *Response, sight *market.ReadSet, gone bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer close(p.done)
	present, _ := a.entries.Peek(q)
	if made == nil || !made.Cacheable || len(made.Body) > maxEntryBytes {
		p.abandoned = gone || made == nil
		if present == p {
			a.entries.Remove(q)
		}
		return
	}
	p.response, p.readSet = made, sight
	if present != p {
		return
	}
	a.totalBytes += len(made.Body)
	for a.totalBytes > maxCacheBytes {
		a.entries.RemoveOldest()
	}
}

package cache

import (
	"context"
	"crypto/sha256"
	"sync"
	"sync/atomic"
	"time"

	"github.com/99designs/gqlgen/graphql"
	lru "github.com/hashicorp/golang-lru/v2"

	"agentmarket.space/server/graph/operation"
	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/bytelru"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// Memory limits: 32 MiB of bodies, about 5 MiB of entries and keys (300 bytes each), and
// about 5 MiB of known requests. The largest usual body is a page of a hundred tasks of
// half a kilobyte.
const (
	maxEntries       = 16 << 10
	maxEntryBytes    = 64 << 10 // of one body
	maxCacheBytes    = 32 << 20 // of all bodies
	maxKnownRequests = 16 << 10
)

// Options are the dependencies of a cache.
type Options struct {
	DB  *database.DB
	Now func() time.Time
	// NextDeadline returns the first time after now at which a task changes without a
	// write.
	NextDeadline func(ctx context.Context, now models.Time) (models.Time, error)
	Meter        Meter // may be nil
}

// Meter observes operations that [Cache.Lookup] serves. It must return quickly.
type Meter interface {
	ObserveOperation(root operation.RootField, took time.Duration)
}

// Cache is a response cache. It is safe for concurrent use. A nil *Cache caches
// nothing.
type Cache struct {
	meter    Meter
	windows  windows
	requests *lru.Cache[transport.RequestHash, requestInfo] // GraphQL requests seen before

	hits, misses atomic.Int64 // reads

	mu      sync.Mutex
	entries *bytelru.LRU[Key, *entry]
}

// Key identifies a cached response.
type Key struct {
	hash    operation.Hash
	agentID string // the caller of a private request; empty for public ones and anonymous callers
}

// KeyFor returns the key of a request. Callers share a public response; each caller
// has its own private ones.
func KeyFor(ctx context.Context, request string, private bool) Key {
	return (requestInfo{hash: sha256.Sum256([]byte(request)), private: private}).key(ctx)
}

// requestInfo is what the cache knows about a GraphQL request.
type requestInfo struct {
	hash      operation.Hash
	private   bool // the response depends on the caller
	rootField operation.RootField
}

func (i requestInfo) key(ctx context.Context) Key {
	key := Key{hash: i.hash}
	if i.private {
		actor, _ := auth.FromContext(ctx)
		key.agentID = actor.AgentID
	}
	return key
}

// Response is a rendered response.
type Response struct {
	Body      []byte
	Link      string          // REST: the Link header
	Balance   *models.Credits // REST: the caller's balance; nil if the request did not load it
	Err       error           // returned in place of Body; never cached
	Cacheable bool            // Body and Balance may be cached

	graphqlResponse *graphql.Response // GraphQL: Body is its JSON, if it is cacheable
}

// entry is a cached response, or one that a caller is producing.
type entry struct {
	window   window // in which the caller started
	done     chan struct{}
	response *Response // nil if the response is not cacheable; set before done is closed
	readSet  *readSet
	// abandoned is true if there is no response because its caller was cancelled or
	// panicked.
	abandoned bool
}

// New returns an empty cache.
func New(o Options) (*Cache, error) {
	requests, err := lru.New[transport.RequestHash, requestInfo](maxKnownRequests)
	if err != nil {
		return nil, err
	}
	entries, err := bytelru.New[Key, *entry](maxEntries, maxCacheBytes)
	return &Cache{meter: o.Meter, windows: windows{options: &o}, requests: requests, entries: entries}, err
}

// Get returns the cached response for key, or calls execute and caches its response.
// Concurrent calls with the same key share one call of execute.
func (c *Cache) Get(ctx context.Context, key Key, execute func(context.Context) *Response) *Response {
	if cached := c.lookup(ctx, key); cached != nil {
		return cached
	}
	if c == nil {
		return execute(ctx)
	}
	current, err := c.windows.now(ctx) // before execute reads anything
	if err != nil || !current.exclusive {
		return c.execute(ctx, execute)
	}
	for {
		e, reserved := c.reserve(current, key)
		if reserved {
			return c.fill(ctx, key, e, execute)
		}
		select {
		case <-e.done:
		case <-ctx.Done():
			return c.execute(ctx, execute) // returns the error of ctx
		}
		if e.response != nil {
			c.hits.Add(1)
			return e.response
		}
		if !e.abandoned { // an error, which may differ for this caller
			return c.execute(ctx, execute)
		}
	}
}

// Counts returns how many reads were served from the cache, including those that waited
// for a concurrent call, and how many were executed.
func (c *Cache) Counts() (hits, misses int64) { return c.hits.Load(), c.misses.Load() }

// lookup returns the cached response for key, nil if there is none that is valid.
func (c *Cache) lookup(ctx context.Context, key Key) *Response {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	e, _ := c.entries.Get(key)
	if e == nil || e.response == nil {
		c.mu.Unlock()
		return nil
	}
	c.mu.Unlock()
	if !c.windows.valid(ctx, e.readSet) {
		return nil
	}
	c.hits.Add(1)
	return e.response
}

func (c *Cache) execute(ctx context.Context, execute func(context.Context) *Response) *Response {
	c.misses.Add(1)
	return execute(ctx)
}

// reserve returns the entry of a key in a window, and whether the caller must fill it.
func (c *Cache) reserve(current window, key Key) (e *entry, reserved bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.entries.Get(key); ok && e.window == current {
		return e, false
	}
	e = &entry{window: current, done: make(chan struct{})}
	c.entries.Set(key, e, 0)
	return e, true
}

// fill executes the request of an entry and wakes the callers that wait for it.
func (c *Cache) fill(ctx context.Context, key Key, e *entry, execute func(context.Context) *Response) *Response {
	var resp *Response
	trackedCtx, reads := c.windows.track(ctx, e.window)
	defer func() { c.finish(key, e, resp, reads, ctx.Err() != nil) }() // also after a panic
	resp = c.execute(trackedCtx, execute)
	return resp
}

// finish stores the response of an entry, nil after a panic, or removes the entry.
func (c *Cache) finish(key Key, e *entry, resp *Response, reads *readSet, cancelled bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(e.done)
	stored, _ := c.entries.Peek(key)
	if resp == nil || !resp.Cacheable || len(resp.Body) > maxEntryBytes {
		e.abandoned = cancelled || resp == nil
		if stored == e {
			c.entries.Remove(key)
		}
		return
	}
	e.response, e.readSet = resp, reads
	if stored == e { // neither evicted nor replaced
		c.entries.Set(key, e, len(resp.Body))
	}
}

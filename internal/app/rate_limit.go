package app

import (
	"context"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/models"
)

const (
	// maxTrackedCallers is how many callers are told apart; the one longest away is
	// forgotten first.
	maxTrackedCallers = 100_000
	// A network may register so many agents at once, and one so often in the long
	// run: each mints credits.
	registrationBurst    = 60
	registrationInterval = time.Minute
)

// requestRate is 100 requests a second, in bursts of 200.
func requestRate() callRate { return callRate{interval: 10 * time.Millisecond, burst: 200} }

// callRate is how often something may be done: once every so long in the long run,
// so many at once.
type callRate struct {
	interval time.Duration
	burst    int
}

// bucket is what a caller has used. It is empty, and may be forgotten, when its
// time has come.
type bucket struct {
	emptyAt  time.Time
	unsynced int64 // taken since the other replicas were told
}

// add puts n more in.
func (b *bucket) add(n int64, p callRate, now time.Time) {
	if b.emptyAt.Before(now) {
		b.emptyAt = now
	}
	b.emptyAt = b.emptyAt.Add(time.Duration(n) * p.interval)
}

// keyedLimiter keeps each of many callers to a pace.
type keyedLimiter struct {
	callRate
	now func() time.Time
	// syncThreshold is how much a caller has used when the other replicas are to know
	// of it; 0 when there are none.
	syncThreshold int64

	mu              sync.Mutex
	buckets         *simplelru.LRU[string, *bucket]
	unsyncedBuckets map[string]*bucket // used so much
}

func newKeyedLimiter(p callRate, tellFrom int64, now func() time.Time) (*keyedLimiter, error) {
	callers, err := simplelru.NewLRU[string, *bucket](maxTrackedCallers, nil)
	return &keyedLimiter{callRate: p, now: now, syncThreshold: tellFrom, buckets: callers, unsyncedBuckets: map[string]*bucket{}}, err
}

// allow takes one of what the caller may do and tells how many are left. When
// none is, wait says when the next one is.
func (l *keyedLimiter) allow(caller string) (left int, wait time.Duration) {
	now := l.now()
	full := now.Add(time.Duration(l.burst) * l.interval)
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucketFor(caller)
	after := *b
	after.add(1, l.callRate, now)
	if wait = after.emptyAt.Sub(full); wait > 0 {
		return 0, wait
	}
	after.unsynced++
	*b = after
	if l.syncThreshold > 0 && b.unsynced >= l.syncThreshold {
		l.unsyncedBuckets[caller] = b
	}
	return int(full.Sub(b.emptyAt) / l.interval), 0
}

// drainUsage returns what busy callers used, for the other replicas to know.
func (l *keyedLimiter) drainUsage() map[string]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	used := make(map[string]int64, len(l.unsyncedBuckets))
	for caller, b := range l.unsyncedBuckets {
		used[caller], b.unsynced = b.unsynced, 0
	}
	clear(l.unsyncedBuckets)
	return used
}

// addRemoteUsage takes what a caller used at other replicas, be it more than is left.
func (l *keyedLimiter) addRemoteUsage(caller string, used int64) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bucketFor(caller).add(used, l.callRate, now)
}

// bucketFor is the caller's. The mutex is held.
func (l *keyedLimiter) bucketFor(caller string) *bucket {
	b, ok := l.buckets.Get(caller)
	if !ok {
		b = &bucket{}
		l.buckets.Add(caller, b)
	}
	return b
}

// rateLimiter are the paces of requests. A nil limiter limits nothing.
type rateLimiter struct {
	byKey, byAddress *keyedLimiter
	onLimited        func(known bool) // told of each refusal, and whether the caller has a key; may be nil
}

// newRateLimiter makes the limits: one pace for a key, and the same for a network
// that calls without one. Those of replicas have to be exchanged.
func newRateLimiter(on, replicas bool, now func() time.Time) (*rateLimiter, error) {
	if !on {
		return &rateLimiter{}, nil
	}
	var tellFrom int64
	if replicas {
		tellFrom = usageSyncThreshold(requestRate())
	}
	byKey, err := newKeyedLimiter(requestRate(), tellFrom, now)
	if err != nil {
		return nil, err
	}
	byAddress, err := newKeyedLimiter(requestRate(), tellFrom, now)
	return &rateLimiter{byKey: byKey, byAddress: byAddress}, err
}

// quota is what a caller may still do, for headers.
type quota struct {
	limit, remaining int
	reset            time.Duration // until the whole burst may be used again
}

// allowRequest takes one request of the caller: an agent by its key, a stranger by
// the network. It refuses with RATE_LIMITED.
func (l *rateLimiter) allowRequest(ctx context.Context) (*quota, error) {
	if l.byKey == nil {
		return nil, nil //nolint:nilnil // nothing is limited
	}
	actor, ok := auth.FromContext(ctx)
	limiter, caller := l.byKey, actor.AgentID
	if !ok {
		limiter, caller = l.byAddress, auth.RequestFrom(ctx).Network()
	}
	left, wait := limiter.allow(caller)
	q := &quota{limit: limiter.burst, remaining: left, reset: time.Duration(limiter.burst-left) * limiter.interval}
	if wait > 0 {
		if l.onLimited != nil {
			l.onLimited(ok)
		}
		return q, models.RateLimitError(wait, "too many requests")
	}
	return q, nil
}

// allowOperation takes one operation on a live socket.
func (l *rateLimiter) allowOperation(ctx context.Context) error {
	_, err := l.allowRequest(ctx)
	return err
}

// formatSeconds writes a duration in whole seconds, rounded up.
func formatSeconds(d time.Duration) string { return strconv.Itoa(int(math.Ceil(d.Seconds()))) }

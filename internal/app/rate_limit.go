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
	// maxTrackedCallers bounds the memory of a limiter. The least recently active caller
	// is evicted first.
	maxTrackedCallers = 100_000
	// The registration quota of a network. It is low because each new agent receives
	// starting credits.
	registrationBurst    = 60
	registrationInterval = time.Minute
)

// requestRate returns the rate limit of requests: 100 a second, with bursts of 200.
func requestRate() callRate { return callRate{interval: 10 * time.Millisecond, burst: 200} }

// callRate is a rate limit: one call an interval on average, and up to burst calls at
// once.
type callRate struct {
	interval time.Duration
	burst    int
}

// bucket is the leaky bucket of a caller. It stores the time at which it is empty.
type bucket struct {
	emptyAt  time.Time
	unsynced int64 // used since the last sync with other replicas
}

// add adds n calls.
func (b *bucket) add(n int64, rate callRate, now time.Time) {
	if b.emptyAt.Before(now) {
		b.emptyAt = now
	}
	b.emptyAt = b.emptyAt.Add(time.Duration(n) * rate.interval)
}

// keyedLimiter applies a rate limit to each caller separately.
type keyedLimiter struct {
	callRate
	now func() time.Time
	// syncThreshold is the unsynced usage from which a caller is reported to the other
	// replicas; 0 without replicas.
	syncThreshold int64

	mu              sync.Mutex
	buckets         *simplelru.LRU[string, *bucket]
	unsyncedBuckets map[string]*bucket // at or above syncThreshold
}

func newKeyedLimiter(rate callRate, syncThreshold int64, now func() time.Time) (*keyedLimiter, error) {
	callers, err := simplelru.NewLRU[string, *bucket](maxTrackedCallers, nil)
	return &keyedLimiter{callRate: rate, now: now, syncThreshold: syncThreshold, buckets: callers, unsyncedBuckets: map[string]*bucket{}}, err
}

// allow takes one call from the quota of the caller, and returns the number of
// remaining calls. If none is left, wait is the time until the next one.
func (l *keyedLimiter) allow(caller string) (remaining int, wait time.Duration) {
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

// drainUsage returns and resets the unsynced usage of the callers above the threshold.
func (l *keyedLimiter) drainUsage() map[string]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	usage := make(map[string]int64, len(l.unsyncedBuckets))
	for caller, b := range l.unsyncedBuckets {
		usage[caller], b.unsynced = b.unsynced, 0
	}
	clear(l.unsyncedBuckets)
	return usage
}

// addRemoteUsage adds the usage of a caller at other replicas, even beyond its quota.
func (l *keyedLimiter) addRemoteUsage(caller string, used int64) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bucketFor(caller).add(used, l.callRate, now)
}

// bucketFor returns the bucket of a caller. The caller must hold mu.
func (l *keyedLimiter) bucketFor(caller string) *bucket {
	b, ok := l.buckets.Get(caller)
	if !ok {
		b = &bucket{}
		l.buckets.Add(caller, b)
	}
	return b
}

// rateLimiter applies the request rate limits. Without limiters it allows all requests.
type rateLimiter struct {
	byKey, byAddress *keyedLimiter
	onLimited        func(hasKey bool) // called for each rejected request; may be nil
}

// newRateLimiter returns a limiter with the same rate for each API key and for each
// network without a key. With replicas, syncWithReplicas must run.
func newRateLimiter(on, replicas bool, now func() time.Time) (*rateLimiter, error) {
	if !on {
		return &rateLimiter{}, nil
	}
	var syncThreshold int64
	if replicas {
		syncThreshold = usageSyncThreshold(requestRate())
	}
	byKey, err := newKeyedLimiter(requestRate(), syncThreshold, now)
	if err != nil {
		return nil, err
	}
	byAddress, err := newKeyedLimiter(requestRate(), syncThreshold, now)
	return &rateLimiter{byKey: byKey, byAddress: byAddress}, err
}

// quota is the remaining quota of a caller, for response headers.
type quota struct {
	limit, remaining int
	reset            time.Duration // time until the full burst is available
}

// allowRequest takes one request from the quota of the caller: of the agent, or of the
// network for anonymous callers. It returns RATE_LIMITED if none is left.
func (l *rateLimiter) allowRequest(ctx context.Context) (*quota, error) {
	if l.byKey == nil {
		return nil, nil //nolint:nilnil // no limit
	}
	actor, hasKey := auth.FromContext(ctx)
	limiter, caller := l.byKey, actor.AgentID
	if !hasKey {
		limiter, caller = l.byAddress, auth.RequestFrom(ctx).Network()
	}
	remaining, wait := limiter.allow(caller)
	q := &quota{limit: limiter.burst, remaining: remaining, reset: time.Duration(limiter.burst-remaining) * limiter.interval}
	if wait > 0 {
		if l.onLimited != nil {
			l.onLimited(hasKey)
		}
		return q, models.RateLimitError(wait, "too many requests")
	}
	return q, nil
}

// allowOperation takes one GraphQL operation of a WebSocket from the quota.
func (l *rateLimiter) allowOperation(ctx context.Context) error {
	_, err := l.allowRequest(ctx)
	return err
}

// formatSeconds formats a duration as whole seconds, rounded up.
func formatSeconds(d time.Duration) string { return strconv.Itoa(int(math.Ceil(d.Seconds()))) }

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
	// limitedCallers is how many callers are told apart; the one longest away is
	// forgotten first.
	limitedCallers = 100_000
	// A network may register so many agents at once, and one so often in the long
	// run: each mints credits.
	registerBurst = 60
	registerEvery = time.Minute
)

// requestPace is 100 requests a second, in bursts of 200.
func requestPace() pace { return pace{every: 10 * time.Millisecond, burst: 200} }

// pace is how often something may be done: once every so long in the long run,
// so many at once.
type pace struct {
	every time.Duration
	burst int
}

// bucket is what a caller has used. It is empty, and may be forgotten, when its
// time has come.
type bucket struct {
	emptyAt time.Time
	untold  int64 // taken since the other replicas were told
}

// take puts n more in.
func (b *bucket) take(n int64, p pace, now time.Time) {
	if b.emptyAt.Before(now) {
		b.emptyAt = now
	}
	b.emptyAt = b.emptyAt.Add(time.Duration(n) * p.every)
}

// limiter keeps each of many callers to a pace.
type limiter struct {
	pace
	now func() time.Time
	// tellFrom is how much a caller has used when the other replicas are to know
	// of it; 0 when there are none.
	tellFrom int64

	mu      sync.Mutex
	callers *simplelru.LRU[string, *bucket]
	busy    map[string]*bucket // used so much
}

func newLimiter(p pace, tellFrom int64, now func() time.Time) (*limiter, error) {
	callers, err := simplelru.NewLRU[string, *bucket](limitedCallers, nil)
	return &limiter{pace: p, now: now, tellFrom: tellFrom, callers: callers, busy: map[string]*bucket{}}, err
}

// allow takes one of what the caller may do and tells how many are left. When
// none is, wait says when the next one is.
func (l *limiter) allow(caller string) (left int, wait time.Duration) {
	now := l.now()
	full := now.Add(time.Duration(l.burst) * l.every)
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(caller)
	after := *b
	after.take(1, l.pace, now)
	if wait = after.emptyAt.Sub(full); wait > 0 {
		return 0, wait
	}
	after.untold++
	*b = after
	if l.tellFrom > 0 && b.untold >= l.tellFrom {
		l.busy[caller] = b
	}
	return int(full.Sub(b.emptyAt) / l.every), 0
}

// told returns what busy callers used, for the other replicas to know.
func (l *limiter) told() map[string]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	used := make(map[string]int64, len(l.busy))
	for caller, b := range l.busy {
		used[caller], b.untold = b.untold, 0
	}
	clear(l.busy)
	return used
}

// heard takes what a caller used at other replicas, be it more than is left.
func (l *limiter) heard(caller string, used int64) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bucket(caller).take(used, l.pace, now)
}

// bucket is the caller's. The mutex is held.
func (l *limiter) bucket(caller string) *bucket {
	b, ok := l.callers.Get(caller)
	if !ok {
		b = &bucket{}
		l.callers.Add(caller, b)
	}
	return b
}

// limits are the paces of requests. A nil limiter limits nothing.
type limits struct {
	byKey, byAddress *limiter
	refused          func(known bool) // told of each refusal, and whether the caller has a key; may be nil
}

// newLimits makes the limits: one pace for a key, and the same for a network
// that calls without one. Those of replicas have to be exchanged.
func newLimits(on, replicas bool, now func() time.Time) (*limits, error) {
	if !on {
		return &limits{}, nil
	}
	var tellFrom int64
	if replicas {
		tellFrom = tellFromTenth(requestPace())
	}
	byKey, err := newLimiter(requestPace(), tellFrom, now)
	if err != nil {
		return nil, err
	}
	byAddress, err := newLimiter(requestPace(), tellFrom, now)
	return &limits{byKey: byKey, byAddress: byAddress}, err
}

// quota is what a caller may still do, for headers.
type quota struct {
	limit, left int
	reset       time.Duration // until the whole burst may be used again
}

// request takes one request of the caller: an agent by its key, a stranger by
// the network. It refuses with RATE_LIMITED.
func (l *limits) request(ctx context.Context) (*quota, error) {
	if l.byKey == nil {
		return nil, nil //nolint:nilnil // nothing is limited
	}
	actor, ok := auth.FromContext(ctx)
	limiter, caller := l.byKey, actor.AgentID
	if !ok {
		limiter, caller = l.byAddress, auth.RequestFrom(ctx).Network()
	}
	left, wait := limiter.allow(caller)
	q := &quota{limit: limiter.burst, left: left, reset: time.Duration(limiter.burst-left) * limiter.every}
	if wait > 0 {
		if l.refused != nil {
			l.refused(ok)
		}
		return q, models.Limited(wait, "too many requests")
	}
	return q, nil
}

// operation takes one operation on a live socket.
func (l *limits) operation(ctx context.Context) error {
	_, err := l.request(ctx)
	return err
}

// seconds writes a duration in whole seconds, rounded up.
func seconds(d time.Duration) string { return strconv.Itoa(int(math.Ceil(d.Seconds()))) }

package app

import (
	"context"
	"math"
	"strconv"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"agentmarket.space/server/auth"
	"agentmarket.space/server/models"
)

// limitedCallers is how many callers are told apart; the one longest away is
// forgotten first.
const limitedCallers = 100_000

// pace is how often something may be done: so many a second in the long run,
// so many at once.
type pace struct {
	perSecond rate.Limit
	burst     int
}

// limiter keeps each of many callers to a pace.
type limiter struct {
	pace
	now     func() time.Time
	callers *lru.Cache[string, *rate.Limiter]
}

func newLimiter(p pace, now func() time.Time) (*limiter, error) {
	callers, err := lru.New[string, *rate.Limiter](limitedCallers)
	return &limiter{pace: p, now: now, callers: callers}, err
}

// allow takes one of what the caller may do and tells how many are left. When
// none is, wait says when the next one is.
func (l *limiter) allow(caller string) (left int, wait time.Duration) {
	bucket, ok := l.callers.Get(caller)
	if !ok {
		bucket = rate.NewLimiter(l.perSecond, l.burst)
		if earlier, found, _ := l.callers.PeekOrAdd(caller, bucket); found {
			bucket = earlier
		}
	}
	now := l.now()
	if bucket.AllowN(now, 1) {
		return int(bucket.TokensAt(now)), 0
	}
	missing := 1 - bucket.TokensAt(now)
	return 0, time.Duration(missing / float64(l.perSecond) * float64(time.Second))
}

// limits are the paces of the server. A nil limiter limits nothing.
type limits struct{ byKey, byAddress, register *limiter }

// newLimits makes the limits: 100 requests a second for a key, in bursts of
// 200; the same for an address without one; registrations one a minute for an
// address, in bursts of 60, as each mints credits.
func newLimits(on bool, now func() time.Time) (*limits, error) {
	if !on {
		return &limits{}, nil
	}
	var l limits
	for _, made := range []struct {
		at *(*limiter)
		pace
	}{
		{&l.byKey, pace{100, 200}},
		{&l.byAddress, pace{100, 200}},
		{&l.register, pace{rate.Every(time.Minute), 60}},
	} {
		limiter, err := newLimiter(made.pace, now)
		if err != nil {
			return nil, err
		}
		*made.at = limiter
	}
	return &l, nil
}

// quota is what a caller may still do, for headers.
type quota struct {
	limit, left int
	reset       time.Duration // until the whole burst may be used again
}

// request takes one request of the caller: an agent by its key, a stranger by
// the address. It refuses with RATE_LIMITED.
func (l *limits) request(ctx context.Context) (*quota, error) {
	limiter, caller := l.byAddress, auth.RequestFrom(ctx).Address
	if actor, ok := auth.FromContext(ctx); ok {
		limiter, caller = l.byKey, actor.AgentID
	}
	if limiter == nil {
		return nil, nil //nolint:nilnil // nothing is limited
	}
	left, wait := limiter.allow(caller)
	missing := float64(limiter.burst-left) / float64(limiter.perSecond)
	q := &quota{limit: limiter.burst, left: left, reset: time.Duration(missing * float64(time.Second))}
	if wait > 0 {
		return q, tooMany(wait, "too many requests")
	}
	return q, nil
}

// operation takes one operation on a live socket.
func (l *limits) operation(ctx context.Context) error {
	_, err := l.request(ctx)
	return err
}

// mint takes one registration of an address.
func (l *limits) mint(address string) error {
	if l.register == nil {
		return nil
	}
	if _, wait := l.register.allow(address); wait > 0 {
		return tooMany(wait, "too many agents were registered from this address")
	}
	return nil
}

func tooMany(wait time.Duration, what string) *models.Error {
	err := models.Errorf(models.RateLimited, "%s; try again in %s s", what, seconds(wait))
	err.RetryAfter = wait
	return err
}

// seconds writes a duration in whole seconds, rounded up.
func seconds(d time.Duration) string { return strconv.Itoa(int(math.Ceil(d.Seconds()))) }

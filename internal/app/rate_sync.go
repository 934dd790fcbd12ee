package app

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"agentmarket.space/server/internal/database"
)

// usageSyncInterval is the interval at which replicas exchange usage. Replicas do not
// count each other's requests within an interval.
const usageSyncInterval = time.Second

// usageSyncThreshold is a tenth of the calls that a rate allows in one interval. A
// caller below it is not reported, so that occasional callers cost nothing. Its usage
// accumulates until it reaches the threshold.
func usageSyncThreshold(rate callRate) int64 { return int64(usageSyncInterval / rate.interval / 10) }

// syncWithReplicas exchanges usage with the other replicas until ctx is done. While
// the exchange fails, each replica applies the limits alone.
func (l *rateLimiter) syncWithReplicas(ctx context.Context, others *database.UsageSync, logger *slog.Logger) {
	ticker := time.NewTicker(usageSyncInterval)
	defer ticker.Stop()
	for failing := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := l.syncUsage(ctx, others)
		if err != nil && !failing && ctx.Err() == nil {
			logger.WarnContext(ctx, "rate limit sync failed, each replica limits separately", slog.Any("error", err))
		}
		failing = err != nil
	}
}

// syncUsage sends local usage to the other replicas and adds theirs. Usage that cannot
// be sent is dropped, because it would be outdated later.
func (l *rateLimiter) syncUsage(ctx context.Context, others *database.UsageSync) error {
	ctx, cancel := context.WithTimeout(ctx, 2*usageSyncInterval) // a connection can hang
	defer cancel()
	scopes := map[string]*keyedLimiter{"key": l.byKey, "address": l.byAddress}
	used := map[string]int64{}
	for scope, limiter := range scopes {
		for caller, n := range limiter.drainUsage() {
			used[scope+" "+caller] = n
		}
	}
	remote, err := others.Exchange(ctx, used)
	for name, n := range remote {
		scope, caller, _ := strings.Cut(name, " ")
		if limiter := scopes[scope]; limiter != nil { // a newer version may have more scopes
			limiter.addRemoteUsage(caller, n)
		}
	}
	return err
}

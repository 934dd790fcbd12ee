package app

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"agentmarket.space/server/internal/database"
)

// usageSyncInterval is how often replicas tell each other what callers used: what
// one lets through in the meantime the others cannot count.
const usageSyncInterval = time.Second

// usageSyncThreshold is a tenth of what a pace allows between two exchanges. A caller
// is not told of until it has used that much, so that a thousand quiet ones cost
// nothing; it stays noted, so that in the long run all of it is told.
func usageSyncThreshold(p callRate) int64 { return int64(usageSyncInterval / p.interval / 10) }

// syncWithReplicas exchanges with the other replicas until ctx ends. While it cannot, each
// limits alone.
func (l *rateLimiter) syncWithReplicas(ctx context.Context, others *database.UsageSync, logger *slog.Logger) {
	ticker := time.NewTicker(usageSyncInterval)
	defer ticker.Stop()
	for alone := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := l.syncUsage(ctx, others)
		if err != nil && !alone && ctx.Err() == nil {
			logger.WarnContext(ctx, "cannot exchange rate limits with the other replicas; limiting alone", slog.Any("error", err))
		}
		alone = err != nil
	}
}

// syncUsage tells the other replicas what callers used here and takes what they
// used there. What cannot be told is not told later: it would be out of date.
func (l *rateLimiter) syncUsage(ctx context.Context, others *database.UsageSync) error {
	ctx, cancel := context.WithTimeout(ctx, 2*usageSyncInterval) // a connection can die without a sign
	defer cancel()
	scopes := map[string]*keyedLimiter{"key": l.byKey, "address": l.byAddress}
	used := map[string]int64{}
	for scope, limiter := range scopes {
		for caller, n := range limiter.drainUsage() {
			used[scope+" "+caller] = n
		}
	}
	elsewhere, err := others.Exchange(ctx, used)
	for name, n := range elsewhere {
		scope, caller, _ := strings.Cut(name, " ")
		if limiter := scopes[scope]; limiter != nil { // a newer replica may limit more
			limiter.addRemoteUsage(caller, n)
		}
	}
	return err
}

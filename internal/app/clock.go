package app

import (
	"crypto/x509"
	"sync/atomic"
	"time"

	"agentmarket.space/server/models"
)

// maxClockOffset is the maximum total offset of a clock. It exceeds every deadline of
// the market, and keeps dates in a valid range.
const maxClockOffset = 10 * 365 * 24 * time.Hour

// Clock is a clock that can be advanced, for development.
type Clock struct{ offset atomic.Int64 }

// Now returns the system time plus the offset.
func (c *Clock) Now() time.Time { return time.Now().Add(c.Offset()) }

// Offset returns the total time by which the clock was advanced.
func (c *Clock) Offset() time.Duration { return time.Duration(c.offset.Load()) }

// Advance advances the clock by d. It returns INVALID_INPUT if d is not positive or
// the total offset would exceed ten years.
func (c *Clock) Advance(d time.Duration) error {
	for {
		offset := c.offset.Load()
		if d <= 0 || d > maxClockOffset-time.Duration(offset) {
			return models.FieldErrorf("advance", "must be more than 0s, and the total must not exceed %s", maxClockOffset)
		}
		if c.offset.CompareAndSwap(offset, offset+int64(d)) {
			return nil
		}
	}
}

// Development holds the options of a development sandbox.
type Development struct {
	Clock   *Clock         // advanced with POST /operator/clock; nil for the system clock
	RootCAs *x509.CertPool // trusted for endpoints and webhooks; nil for the system roots
}

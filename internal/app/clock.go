package app

import (
	"crypto/x509"
	"encoding/json"
	"net/http"
	"sync/atomic"
	"time"

	"agentmarket.space/server/compat"
	"agentmarket.space/server/models"
)

// maxClockOffset is how far a clock can be moved on in all: further than anything in a
// market lasts, and near enough for dates to be dates.
const maxClockOffset = 10 * 365 * 24 * time.Hour

// Clock shows the time, and can be moved on.
type Clock struct{ offset atomic.Int64 }

// Now is the time that the clock shows.
func (c *Clock) Now() time.Time { return time.Now().Add(c.Offset()) }

// Offset is by how much the clock was moved on.
func (c *Clock) Offset() time.Duration { return time.Duration(c.offset.Load()) }

// Advance moves the clock on. INVALID_INPUT unless it goes on, and not too far.
func (c *Clock) Advance(d time.Duration) error {
	for {
		ahead := c.offset.Load()
		if d <= 0 || d > maxClockOffset-time.Duration(ahead) {
			return models.Invalid("advance", "must be more than 0s, and not lead more than %s ahead: a clock does not go back", maxClockOffset)
		}
		if c.offset.CompareAndSwap(ahead, ahead+int64(d)) {
			return nil
		}
	}
}

// Development is what a market has that one develops against.
type Development struct {
	Clock   *Clock         // moved on at /operator/clock
	RootCAs *x509.CertPool // by whom the addresses of agents are certified
}

// advanceClock moves the clock on by what the body says, {"advance": "24h"}, and answers with
// what it shows.
func (o *operatorAPI) advanceClock(w http.ResponseWriter, r *http.Request) {
	var body struct{ Advance string }
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<10)).Decode(&body)
	by, malformed := time.ParseDuration(body.Advance)
	if err != nil || malformed != nil {
		compat.WriteError(w, r, models.Invalid("advance", `must be a duration: {"advance": "24h"}, or in m or s`), nil)
		return
	}
	err = o.clock.Advance(by)
	o.respond(w, r, map[string]any{"now": models.NewTime(o.clock.Now()), "ahead": o.clock.Offset().String()}, err)
}

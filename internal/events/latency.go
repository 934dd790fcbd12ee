package events

import (
	"time"

	"agentmarket.space/server/models"
)

// OnDispatch calls fn for each dispatched event with the time since the event was
// created. Events are not dispatched while no feed is open. fn must return quickly.
func (l *Log) OnDispatch(fn func(latency time.Duration)) { l.onDispatch.Store(&fn) }

// reportLatency reports the latency of the events of a page.
func (l *Log) reportLatency(events []models.Event) {
	report := l.onDispatch.Load()
	if report == nil {
		return
	}
	now := models.NewTime(time.Now()) //nolint:forbidigo // measures this process; the market's clock does not apply
	for i := range events {
		(*report)(max(0, time.Duration(now-events[i].CreatedAt)*time.Microsecond)) // clocks of replicas differ
	}
}

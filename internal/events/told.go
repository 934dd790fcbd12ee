package events

import (
	"time"

	"agentmarket.space/server/models"
)

// Dropped returns how many feeds ended because their readers fell behind.
func (l *Log) Dropped() int64 { return l.dropped.Load() }

// OnHandedOut has fn told how long after it was written each event is handed out that
// somebody listens for. It must be quick.
func (l *Log) OnHandedOut(fn func(late time.Duration)) { l.handedOut.Store(&fn) }

// tellLate tells how late the events of a page are.
func (l *Log) tellLate(events []models.Event) {
	tell := l.handedOut.Load()
	if tell == nil {
		return
	}
	now := models.At(time.Now()) //nolint:forbidigo // it is about this process
	for i := range events {
		(*tell)(max(0, time.Duration(now-events[i].CreatedAt)*time.Microsecond)) // clocks of replicas differ
	}
}

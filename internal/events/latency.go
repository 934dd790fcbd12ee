package events

import (
	"time"

	"agentmarket.space/server/models"
)

// SlowConsumers returns how many feeds ended because their readers fell behind.
func (l *Log) SlowConsumers() int64 { return l.slowConsumers.Load() }

// OnDispatch has fn told how long after it was written each event is handed out that
// somebody listens for. It must be quick.
func (l *Log) OnDispatch(fn func(late time.Duration)) { l.onDispatch.Store(&fn) }

// reportLatency tells how late the events of a page are.
func (l *Log) reportLatency(events []models.Event) {
	tell := l.onDispatch.Load()
	if tell == nil {
		return
	}
	now := models.NewTime(time.Now()) //nolint:forbidigo // it is about this process
	for i := range events {
		(*tell)(max(0, time.Duration(now-events[i].CreatedAt)*time.Microsecond)) // clocks of replicas differ
	}
}

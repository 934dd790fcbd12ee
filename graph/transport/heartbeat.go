package transport

import "time"

// checksPerTimeout is how often a heartbeat looks at a connection within the
// shortest of the times that it may take for something.
const checksPerTimeout = 4

// now is the time since the transports began.
func (t *Transports) now() time.Duration {
	return time.Since(t.started) //nolint:forbidigo // it is about connections, not about the market
}

// checkConnections looks at every connection, for as long as there are any. One timer serves
// them all.
func (t *Transports) checkConnections() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for l := range t.connections {
		if l.check != nil {
			l.check(now)
		}
	}
	t.heartbeatRunning = len(t.connections) > 0
	if t.heartbeatRunning {
		t.heartbeatTimer.Reset(t.heartbeatInterval())
	}
}

// startHeartbeat is called with the lock held.
func (t *Transports) startHeartbeat() {
	if t.heartbeatRunning {
		return
	}
	t.heartbeatRunning = true
	t.heartbeatTimer = time.AfterFunc(t.heartbeatInterval(), t.checkConnections)
}

func (t *Transports) heartbeatInterval() time.Duration {
	o := &t.options
	return min(o.InitTimeout, o.PingInterval, o.WriteTimeout) / checksPerTimeout
}

package transport

import "time"

// checksPerTimeout is how many times each connection is checked within the
// shortest timeout.
const checksPerTimeout = 4

// now returns the time since the transports were created.
func (t *Transports) now() time.Duration {
	return time.Since(t.started) //nolint:forbidigo // connection timeouts use real time, not the market's clock
}

// checkConnections checks every connection. One timer serves all connections and stops
// when there are none.
func (t *Transports) checkConnections() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for c := range t.connections {
		if c.check != nil {
			c.check(now)
		}
	}
	t.heartbeatRunning = len(t.connections) > 0
	if t.heartbeatRunning {
		t.heartbeatTimer.Reset(t.heartbeatInterval())
	}
}

// startHeartbeat starts the timer unless it is running. The caller holds mu.
func (t *Transports) startHeartbeat() {
	if t.heartbeatRunning {
		return
	}
	t.heartbeatRunning = true
	t.heartbeatTimer = time.AfterFunc(t.heartbeatInterval(), t.checkConnections)
}

// heartbeatInterval returns the time between two checks.
func (t *Transports) heartbeatInterval() time.Duration {
	o := &t.options
	return min(o.InitTimeout, o.PingInterval, o.WriteTimeout) / checksPerTimeout
}

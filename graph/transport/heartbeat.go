package transport

import "time"

// looksPerTime is how often a heartbeat looks at a connection within the
// shortest of the times that it may take for something.
const looksPerTime = 4

// now is the time since the transports began.
func (t *Transports) now() time.Duration {
	return time.Since(t.began) //nolint:forbidigo // it is about connections, not about the market
}

// beat looks at every connection, for as long as there are any. One timer serves
// them all.
func (t *Transports) beat() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for l := range t.live {
		if l.look != nil {
			l.look(now)
		}
	}
	t.beating = len(t.live) > 0
	if t.beating {
		t.heart.Reset(t.interval())
	}
}

// startBeating is called with the lock held.
func (t *Transports) startBeating() {
	if t.beating {
		return
	}
	t.beating = true
	t.heart = time.AfterFunc(t.interval(), t.beat)
}

func (t *Transports) interval() time.Duration {
	o := &t.options
	return min(o.InitTimeout, o.PingInterval, o.WriteTimeout) / looksPerTime
}

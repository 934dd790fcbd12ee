package audit

import (
	"sync"

	"agentmarket.space/server/models"
)

// maxRejectionKinds bounds how many kinds of rejection are counted separately between
// two flushes. Networks beyond that are counted together.
const maxRejectionKinds = 1000

// otherNetworks is the network of rejections that are counted together.
const otherNetworks = "elsewhere"

// rejection is a kind of rejected request.
type rejection struct {
	action  models.AuditAction
	network string
	code    models.Code
}

// counter counts rejections by kind.
type counter struct {
	mu     sync.Mutex
	byKind map[rejection]int64
}

func (c *counter) add(r rejection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addLocked(r, 1)
}

// addLocked adds n to a kind. The caller holds the lock.
func (c *counter) addLocked(r rejection, n int64) {
	if c.byKind == nil {
		c.byKind = map[rejection]int64{}
	}
	if _, known := c.byKind[r]; !known && len(c.byKind) >= maxRejectionKinds {
		r.network = otherNetworks
	}
	c.byKind[r] += n
}

// drain returns the counts and resets them.
func (c *counter) drain() map[rejection]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := c.byKind
	c.byKind = nil
	return counts
}

// restore puts drained counts back and adds the newer counts to them.
func (c *counter) restore(counts map[rejection]int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	newer := c.byKind
	c.byKind = counts
	for r, n := range newer {
		c.addLocked(r, n)
	}
}

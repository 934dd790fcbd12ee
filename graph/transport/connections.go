package transport

import (
	"context"
	"errors"
	"slices"
	"time"
)

// connection is one connection that stays open.
type connection struct {
	address, key string
	disconnect   func(code int, reason string) // closes it, without waiting
	check        func(now time.Duration)       // see to it from time to time; nil when nobody need
}

// Reasons not to let a connection in.
var (
	errTooManyConnections = errors.New("too many connections")
	errShuttingDown       = errors.New("the server is stopping")
	errKeyRevoked         = errors.New("Unauthorized: the API key was revoked") //nolint:staticcheck // the reason that clients read
)

// closeCodeFor is what a socket that is not let in is closed with.
func closeCodeFor(reason error) int {
	switch {
	case errors.Is(reason, errShuttingDown):
		return closeGoingAway
	case errors.Is(reason, errKeyRevoked):
		return closeUnauthorized
	default:
		return closeTryAgainLater
	}
}

// maxRevokedKeys is how many revoked keys are remembered: those whose
// connections may have read the key before and not joined yet.
const maxRevokedKeys = 128

// addConnection counts a connection in; it stays counted until leave.
func (t *Transports) addConnection(l *connection) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.stopped:
		return errShuttingDown
	case len(t.connections) >= t.options.MaxConnections, t.byAddr[l.address] >= t.options.MaxPerAddress:
		return errTooManyConnections
	}
	if err := t.checkKey(l.key); err != nil {
		return err
	}
	t.connections[l] = struct{}{}
	t.byAddr[l.address]++
	t.addKey(l.key)
	t.wg.Add(1)
	t.startHeartbeat()
	return nil
}

// checkKey says whether one more connection may have the key.
func (t *Transports) checkKey(key string) error {
	switch {
	case key == "":
		return nil
	case slices.Contains(t.revokedKeys, key):
		return errKeyRevoked
	case t.byKey[key] >= t.options.MaxPerKey:
		return errTooManyConnections
	}
	return nil
}

func (t *Transports) addKey(key string) {
	if key != "" {
		t.byKey[key]++
	}
}

// setKey notes the key that a live connection has shown.
func (t *Transports) setKey(l *connection, key string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if key == l.key {
		return nil
	}
	if err := t.checkKey(key); err != nil {
		return err
	}
	t.releaseKey(l)
	l.key = key
	t.addKey(key)
	return nil
}

func (t *Transports) releaseKey(l *connection) {
	if l.key == "" {
		return
	}
	if t.byKey[l.key]--; t.byKey[l.key] == 0 {
		delete(t.byKey, l.key)
	}
}

func (t *Transports) removeConnection(l *connection) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.connections, l)
	t.releaseKey(l)
	if t.byAddr[l.address]--; t.byAddr[l.address] == 0 {
		delete(t.byAddr, l.address)
	}
	t.wg.Done()
}

// Connections returns how many connections stay open now.
func (t *Transports) Connections() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.connections)
}

// ConnectionsCutOff returns how many connections were ended because their clients did not read.
func (t *Transports) ConnectionsCutOff() int64 { return t.cutOff.Load() }

// CloseKey ends every connection that showed the key, and those that are about
// to: sockets with 4401, which keeps clients from trying again. It does not wait
// for them.
func (t *Transports) CloseKey(key string) {
	t.mu.Lock()
	t.revokedKeys = append(t.revokedKeys, key)
	t.revokedKeys = t.revokedKeys[max(0, len(t.revokedKeys)-maxRevokedKeys):]
	t.mu.Unlock()
	for _, l := range t.findConnections(func(l *connection) bool { return l.key == key }) {
		l.disconnect(closeUnauthorized, errKeyRevoked.Error())
	}
}

// Shutdown lets nobody in any more, ends every connection (sockets with 1001)
// and waits until they are gone or ctx ends.
func (t *Transports) Shutdown(ctx context.Context) {
	t.mu.Lock()
	t.stopped = true
	t.mu.Unlock()
	for _, l := range t.findConnections(func(*connection) bool { return true }) {
		l.disconnect(closeGoingAway, errShuttingDown.Error())
	}
	gone := make(chan struct{})
	go func() {
		t.wg.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-ctx.Done():
	}
}

func (t *Transports) findConnections(wanted func(*connection) bool) []*connection {
	t.mu.Lock()
	defer t.mu.Unlock()
	var found []*connection
	for l := range t.connections {
		if wanted(l) {
			found = append(found, l)
		}
	}
	return found
}

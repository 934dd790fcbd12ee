package transport

import (
	"context"
	"errors"
	"slices"
	"time"
)

// live is one connection that stays open.
type live struct {
	address, key string
	end          func(code int, reason string) // closes it, without waiting
	look         func(now time.Duration)       // see to it from time to time; nil when nobody need
}

// Reasons not to let a connection in.
var (
	errFull    = errors.New("too many connections")
	errStopped = errors.New("the server is stopping")
	errRevoked = errors.New("Unauthorized: the API key was revoked") //nolint:staticcheck // the reason that clients read
)

// closeCode is what a socket that is not let in is closed with.
func closeCode(reason error) int {
	switch {
	case errors.Is(reason, errStopped):
		return closeGoingAway
	case errors.Is(reason, errRevoked):
		return closeUnauthorized
	default:
		return closeFull
	}
}

// rememberRevoked is how many revoked keys are remembered: those whose
// connections may have read the key before and not joined yet.
const rememberRevoked = 128

// join counts a connection in; it stays counted until leave.
func (t *Transports) join(l *live) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.stopped:
		return errStopped
	case len(t.live) >= t.options.MaxConnections, t.byAddr[l.address] >= t.options.MaxPerAddress:
		return errFull
	}
	if err := t.admitKey(l.key); err != nil {
		return err
	}
	t.live[l] = struct{}{}
	t.byAddr[l.address]++
	t.countKey(l.key)
	t.group.Add(1)
	t.startBeating()
	return nil
}

// admitKey says whether one more connection may have the key.
func (t *Transports) admitKey(key string) error {
	switch {
	case key == "":
		return nil
	case slices.Contains(t.revoked, key):
		return errRevoked
	case t.byKey[key] >= t.options.MaxPerKey:
		return errFull
	}
	return nil
}

func (t *Transports) countKey(key string) {
	if key != "" {
		t.byKey[key]++
	}
}

// identify notes the key that a live connection has shown.
func (t *Transports) identify(l *live, key string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if key == l.key {
		return nil
	}
	if err := t.admitKey(key); err != nil {
		return err
	}
	t.forgetKey(l)
	l.key = key
	t.countKey(key)
	return nil
}

func (t *Transports) forgetKey(l *live) {
	if l.key == "" {
		return
	}
	if t.byKey[l.key]--; t.byKey[l.key] == 0 {
		delete(t.byKey, l.key)
	}
}

func (t *Transports) leave(l *live) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.live, l)
	t.forgetKey(l)
	if t.byAddr[l.address]--; t.byAddr[l.address] == 0 {
		delete(t.byAddr, l.address)
	}
	t.group.Done()
}

// Connections returns how many connections stay open now.
func (t *Transports) Connections() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.live)
}

// CutOff returns how many connections were ended because their clients did not read.
func (t *Transports) CutOff() int64 { return t.cutOff.Load() }

// CloseKey ends every connection that showed the key, and those that are about
// to: sockets with 4401, which keeps clients from trying again. It does not wait
// for them.
func (t *Transports) CloseKey(key string) {
	t.mu.Lock()
	t.revoked = append(t.revoked, key)
	t.revoked = t.revoked[max(0, len(t.revoked)-rememberRevoked):]
	t.mu.Unlock()
	for _, l := range t.having(func(l *live) bool { return l.key == key }) {
		l.end(closeUnauthorized, errRevoked.Error())
	}
}

// Shutdown lets nobody in any more, ends every connection (sockets with 1001)
// and waits until they are gone or ctx ends.
func (t *Transports) Shutdown(ctx context.Context) {
	t.mu.Lock()
	t.stopped = true
	t.mu.Unlock()
	for _, l := range t.having(func(*live) bool { return true }) {
		l.end(closeGoingAway, errStopped.Error())
	}
	gone := make(chan struct{})
	go func() {
		t.group.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-ctx.Done():
	}
}

func (t *Transports) having(wanted func(*live) bool) []*live {
	t.mu.Lock()
	defer t.mu.Unlock()
	var found []*live
	for l := range t.live {
		if wanted(l) {
			found = append(found, l)
		}
	}
	return found
}

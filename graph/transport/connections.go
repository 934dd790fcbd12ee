package transport

import (
	"context"
	"errors"
	"slices"
	"time"
)

// connection is an open WebSocket or event stream.
type connection struct {
	address, key string
	// end stops every operation except mutations, and closes the connection when the
	// mutations have been answered. close does not wait for them. Neither blocks.
	end, close func(code int, reason string)
	check      func(now time.Duration) // called by every heartbeat; may be nil
}

// Reasons to reject or close a connection.
var (
	errTooManyConnections = errors.New("too many connections")
	errShuttingDown       = errors.New("the server is shutting down")
	errKeyRevoked         = errors.New("Unauthorized: the API key was revoked") //nolint:staticcheck // sent to clients as is
)

// closeCodeFor returns the close code for a rejected socket.
func closeCodeFor(err error) int {
	switch {
	case errors.Is(err, errShuttingDown):
		return closeGoingAway
	case errors.Is(err, errKeyRevoked):
		return closeUnauthorized
	default:
		return closeTryAgainLater
	}
}

// maxRevokedKeys is how many recently revoked keys are remembered. They reject
// connections that were authenticated before the key was revoked and added after.
const maxRevokedKeys = 128

// addConnection adds an open connection. It fails if a limit is reached, the key is
// revoked or the server is shutting down. Call removeConnection when it is closed.
func (t *Transports) addConnection(c *connection) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.stopped:
		return errShuttingDown
	case len(t.connections) >= t.options.MaxConnections, t.byAddr[c.address] >= t.options.MaxPerAddress:
		return errTooManyConnections
	}
	if err := t.checkKey(c.key); err != nil {
		return err
	}
	t.connections[c] = struct{}{}
	t.byAddr[c.address]++
	t.addKey(c.key)
	t.wg.Add(1)
	t.startHeartbeat()
	return nil
}

// checkKey returns an error if the key is revoked or has too many connections.
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

// setKey changes the key of an open connection after it has authenticated.
func (t *Transports) setKey(c *connection, key string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if key == c.key {
		return nil
	}
	if err := t.checkKey(key); err != nil {
		return err
	}
	t.releaseKey(c)
	c.key = key
	t.addKey(key)
	return nil
}

func (t *Transports) releaseKey(c *connection) {
	if c.key == "" {
		return
	}
	if t.byKey[c.key]--; t.byKey[c.key] == 0 {
		delete(t.byKey, c.key)
	}
}

func (t *Transports) removeConnection(c *connection) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.connections, c)
	t.releaseKey(c)
	if t.byAddr[c.address]--; t.byAddr[c.address] == 0 {
		delete(t.byAddr, c.address)
	}
	t.wg.Done()
}

// Connections returns the number of open connections.
func (t *Transports) Connections() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.connections)
}

// ConnectionsCutOff returns the number of connections closed because their clients did
// not read.
func (t *Transports) ConnectionsCutOff() int64 { return t.cutOff.Load() }

// CloseKey closes every connection that authenticated with key, and rejects new ones.
// Sockets are closed with 4401, so that clients do not reconnect. Subscriptions and
// queries end at once. Running mutations, such as the one that replaces the key, have
// Options.AnswerTimeout to respond. CloseKey does not block.
func (t *Transports) CloseKey(key string) {
	t.mu.Lock()
	t.revokedKeys = append(t.revokedKeys, key)
	t.revokedKeys = t.revokedKeys[max(0, len(t.revokedKeys)-maxRevokedKeys):]
	t.mu.Unlock()
	found := t.findConnections(func(c *connection) bool { return c.key == key })
	for _, c := range found {
		c.end(closeUnauthorized, errKeyRevoked.Error())
	}
	if len(found) == 0 {
		return
	}
	time.AfterFunc(t.options.AnswerTimeout, func() {
		for _, c := range found {
			c.close(closeUnauthorized, errKeyRevoked.Error())
		}
	})
}

// Shutdown rejects new connections, closes the open ones (sockets with 1001) and waits
// until all are closed or ctx is done. Running mutations can respond until then.
func (t *Transports) Shutdown(ctx context.Context) {
	t.mu.Lock()
	t.stopped = true
	t.mu.Unlock()
	open := t.findConnections(func(*connection) bool { return true })
	for _, c := range open {
		c.end(closeGoingAway, errShuttingDown.Error())
	}
	closed := make(chan struct{})
	go func() {
		t.wg.Wait()
		close(closed)
	}()
	select {
	case <-closed:
	case <-ctx.Done():
		for _, c := range open {
			c.close(closeGoingAway, errShuttingDown.Error())
		}
	}
}

func (t *Transports) findConnections(match func(*connection) bool) []*connection {
	t.mu.Lock()
	defer t.mu.Unlock()
	var found []*connection
	for c := range t.connections {
		if match(c) {
			found = append(found, c)
		}
	}
	return found
}

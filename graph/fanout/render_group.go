package fanout

import (
	"context"
	"sync"

	"github.com/99designs/gqlgen/graphql"

	"agentmarket.space/server/graph/operation"
	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/models"
)

// renderGroup is the subscriptions that share payloads. It renders an event once, before
// it wakes its members, so that no member waits for another to render.
type renderGroup struct {
	hub         *Hub
	key         operation.Hash
	operation   *graphql.OperationContext // of the first member
	ctx         context.Context           //nolint:containedctx // of the first member, without the caller
	memberCount int                       // guarded by hub.mu

	mu        sync.Mutex
	pending   *models.Event // the latest event to render
	waiters   []func()      // members to wake once it is rendered
	rendering bool
}

// joinGroup returns the group with a key after adding a member. ctx is the member's.
func (h *Hub) joinGroup(ctx context.Context, key operation.Hash) *renderGroup {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.groups[key]
	if g == nil {
		g = &renderGroup{
			hub: h, key: key, operation: graphql.GetOperationContext(ctx),
			ctx: auth.WithoutActor(context.WithoutCancel(ctx)),
		}
		h.groups[key] = g
	}
	g.memberCount++
	return g
}

func (g *renderGroup) leave() {
	g.hub.mu.Lock()
	defer g.hub.mu.Unlock()
	if g.memberCount--; g.memberCount == 0 {
		delete(g.hub.groups, g.key)
	}
}

// notifyWhenReady calls wake once the payload of an event is rendered. It does not block.
func (g *renderGroup) notifyWhenReady(event *models.Event, wake func()) {
	if g.addWaiter(event, wake) {
		wake()
	}
}

// addWaiter adds a waiter for an event, or reports true if the event is rendered already.
func (g *renderGroup) addWaiter(event *models.Event, wake func()) (rendered bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.hub.payloads.isRendered(g.payloadKey(event)) {
		return true
	}
	g.pending = event
	g.waiters = append(g.waiters, wake)
	if !g.rendering {
		g.rendering = true
		g.hub.renderers.Go(g.renderPending)
	}
	return false
}

// renderPending renders until no member waits.
func (g *renderGroup) renderPending() {
	for {
		event, waiters := g.takeWaiters()
		if event == nil {
			return
		}
		g.payload(event)
		for _, wake := range waiters {
			wake()
		}
	}
}

// takeWaiters returns the pending event and its waiters, nil if rendering is over.
func (g *renderGroup) takeWaiters() (*models.Event, []func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	event, waiters := g.pending, g.waiters
	g.pending, g.waiters = nil, nil
	g.rendering = event != nil
	return event, waiters
}

func (g *renderGroup) payloadKey(event *models.Event) payloadKey {
	return payloadKey{g.key, event.Seq}
}

// payload returns the shared payload of an event and renders it the first time. It
// returns nil for a payload that is too large to share or failed to render: each member
// renders that event itself.
func (g *renderGroup) payload(event *models.Event) []byte {
	key := g.payloadKey(event)
	entry := g.hub.payloads.getOrCreate(key)
	entry.once.Do(func() { g.hub.payloads.store(key, entry, g.render(event)) })
	return entry.payload
}

// render renders an event for the group, nil if there is an error.
func (g *renderGroup) render(event *models.Event) (payload []byte) {
	defer func() { _ = recover() }() // a member that renders the event itself reports the panic
	response := g.hub.render(g.ctx, g.operation, Event{Event: event})
	if len(response.Errors) > 0 {
		return nil
	}
	return transport.MarshalResponse(response)
}

package graph

import (
	"context"
	"sync"

	"github.com/99designs/gqlgen/graphql"

	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/models"
)

// renderGroup is the subscriptions to posted tasks that are answered alike. An event
// is rendered for the first of them, and before they are woken up: so none of
// them waits for another to render it.
type renderGroup struct {
	hub          *Hub
	operationKey operationKey
	operation    *graphql.OperationContext // of the first member's; the others' render the same
	ctx          context.Context           //nolint:containedctx // of the first member, without who it is
	memberCount  int                       // guarded by sharing.mu

	mu        sync.Mutex
	pending   *models.Event // the last one whose answer is not ready
	waiters   []func()      // the members to wake up once it is
	rendering bool
}

// joinGroup returns the group of a document, with one member more.
func (s *Hub) joinGroup(document operationKey, ctx context.Context) *renderGroup { //nolint:revive // it becomes the group's
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[document]
	if g == nil {
		g = &renderGroup{
			hub: s, operationKey: document, operation: graphql.GetOperationContext(ctx),
			ctx: auth.WithoutActor(context.WithoutCancel(ctx)),
		}
		s.groups[document] = g
	}
	g.memberCount++
	return g
}

func (g *renderGroup) leave() {
	g.hub.mu.Lock()
	defer g.hub.mu.Unlock()
	if g.memberCount--; g.memberCount == 0 {
		delete(g.hub.groups, g.operationKey)
	}
}

// notifyWhenReady calls wake once the answer for an event is ready. It does not wait.
func (g *renderGroup) notifyWhenReady(event *models.Event, wake func()) {
	if g.addWaiter(event, wake) {
		wake()
	}
}

// addWaiter reports whether the answer is ready already.
func (g *renderGroup) addWaiter(event *models.Event, wake func()) bool {
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

// renderPending renders for as long as members wait.
func (g *renderGroup) renderPending() {
	for {
		event, waiting := g.takeWaiters()
		if event == nil {
			return
		}
		g.payload(event)
		for _, wake := range waiting {
			wake()
		}
	}
}

// takeWaiters takes those who wait; none ends the work.
func (g *renderGroup) takeWaiters() (*models.Event, []func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	event, waiting := g.pending, g.waiters
	g.pending, g.waiters = nil, nil
	g.rendering = event != nil
	return event, waiting
}

func (g *renderGroup) payloadKey(event *models.Event) payloadKey {
	return payloadKey{g.operationKey, event.Seq}
}

// payload returns what everybody may see of an event, or nil when that is not
// shared: whoever asks is answered alone then. It is rendered unless somebody has.
func (g *renderGroup) payload(event *models.Event) []byte {
	key := g.payloadKey(event)
	answer := g.hub.payloads.getOrCreate(key)
	answer.once.Do(func() { g.hub.payloads.store(key, answer, g.render(event)) })
	return answer.payload
}

// render renders an event for the group, nil when that failed.
func (g *renderGroup) render(event *models.Event) (payload []byte) {
	defer func() { _ = recover() }() // it happens again, and is told of, when it is rendered for one alone
	response := g.hub.render(g.ctx, g.operation, &SubscriptionRequest{Event: event})
	if len(response.Errors) > 0 {
		return nil
	}
	return transport.MarshalResponse(response)
}

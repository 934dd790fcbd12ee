package graph

import (
	"context"
	"sync"

	"github.com/99designs/gqlgen/graphql"

	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/models"
)

// group is the subscriptions to posted tasks that are answered alike. An event
// is rendered for the first of them, and before they are woken up: so none of
// them waits for another to render it.
type group struct {
	sharing   *sharing
	document  document
	operation *graphql.OperationContext // of the first member's; the others' render the same
	ctx       context.Context           //nolint:containedctx // of the first member, without who it is
	members   int                       // guarded by sharing.mu

	mu      sync.Mutex
	coming  *models.Event // the last one whose answer is not ready
	waiting []func()      // the members to wake up once it is
	working bool
}

// join returns the group of a document, with one member more.
func (s *sharing) join(document document, ctx context.Context) *group { //nolint:revive // it becomes the group's
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[document]
	if g == nil {
		g = &group{
			sharing: s, document: document, operation: graphql.GetOperationContext(ctx),
			ctx: auth.WithoutActor(context.WithoutCancel(ctx)),
		}
		s.groups[document] = g
	}
	g.members++
	return g
}

func (g *group) leave() {
	g.sharing.mu.Lock()
	defer g.sharing.mu.Unlock()
	if g.members--; g.members == 0 {
		delete(g.sharing.groups, g.document)
	}
}

// prepare calls wake once the answer for an event is ready. It does not wait.
func (g *group) prepare(event *models.Event, wake func()) {
	if g.enlist(event, wake) {
		wake()
	}
}

// enlist reports whether the answer is ready already.
func (g *group) enlist(event *models.Event, wake func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sharing.ready.has(g.key(event)) {
		return true
	}
	g.coming = event
	g.waiting = append(g.waiting, wake)
	if !g.working {
		g.working = true
		g.sharing.working.Go(g.work)
	}
	return false
}

// work renders for as long as members wait.
func (g *group) work() {
	for {
		event, waiting := g.claim()
		if event == nil {
			return
		}
		g.answer(event)
		for _, wake := range waiting {
			wake()
		}
	}
}

// claim takes those who wait; none ends the work.
func (g *group) claim() (*models.Event, []func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	event, waiting := g.coming, g.waiting
	g.coming, g.waiting = nil, nil
	g.working = event != nil
	return event, waiting
}

func (g *group) key(event *models.Event) answerKey { return answerKey{g.document, event.Seq} }

// answer returns what everybody may see of an event, or nil when that is not
// shared: whoever asks is answered alone then. It is rendered unless somebody has.
func (g *group) answer(event *models.Event) []byte {
	key := g.key(event)
	answer := g.sharing.ready.get(key)
	answer.once.Do(func() { g.sharing.ready.settle(key, answer, g.render(event)) })
	return answer.payload
}

// render renders an event for the group, nil when that failed.
func (g *group) render(event *models.Event) (payload []byte) {
	defer func() { _ = recover() }() // it happens again, and is told of, when it is rendered for one alone
	response := g.sharing.render(g.ctx, g.operation, &tap{one: event})
	if len(response.Errors) > 0 {
		return nil
	}
	return transport.Payload(response)
}

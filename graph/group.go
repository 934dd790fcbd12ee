package graph

import (
	"context"
	"sync"

	"github.com/99designs/gqlgen/graphql"

	"agentmarket.space/server/auth"
	"agentmarket.space/server/graph/transport"
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
	ready   [readyAnswers]readyAnswer // the last ones
	next    int                       // where among them the next one goes
	coming  *models.Event             // the last one that is not ready
	waiting []func()                  // the members to wake up once it is
	working bool
}

// readyAnswers is how many answers a group has at hand: as many as events may
// happen while a socket is written to.
const readyAnswers = 16

// readyAnswer is how an event looks.
type readyAnswer struct {
	event   *models.Event
	payload []byte
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
	if _, ready := g.find(event); ready {
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

// find returns an answer that is at hand. The lock is held.
func (g *group) find(event *models.Event) (payload []byte, ready bool) {
	for i := range g.ready {
		if g.ready[i].event == event {
			return g.ready[i].payload, true
		}
	}
	return nil, false
}

// answer returns what everybody may see of an event, or nil when that cannot be
// told: whoever asks is answered alone then.
func (g *group) answer(event *models.Event) []byte {
	g.mu.Lock()
	payload, ready := g.find(event)
	g.mu.Unlock()
	if ready {
		return payload
	}
	payload = g.render(event)
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ready := g.find(event); !ready {
		g.ready[g.next] = readyAnswer{event, payload}
		g.next = (g.next + 1) % readyAnswers
	}
	return payload
}

// render renders an event unless somebody has.
func (g *group) render(event *models.Event) []byte {
	key := answerKey{g.document, event}
	answer, found := g.sharing.answers.Get(key)
	if !found {
		answer = &sharedAnswer{}
		if earlier, had, _ := g.sharing.answers.PeekOrAdd(key, answer); had {
			answer = earlier
		}
	}
	answer.once.Do(func() {
		defer func() { _ = recover() }() // it happens again, and is told of, when it is rendered for one alone
		if response := g.sharing.render(g.ctx, g.operation, event); len(response.Errors) == 0 {
			answer.payload = transport.Payload(response)
		}
	})
	return answer.payload
}

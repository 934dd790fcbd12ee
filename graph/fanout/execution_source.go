package fanout

import (
	"context"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// Phase is how far a hire has come.
type Phase int

// The phases of a hire, in their order. A hire may skip [PhasePromised].
const (
	PhaseStarted  Phase = iota + 1
	PhasePromised       // the agent delivers its result later
	PhaseSettled        // the hire has ended
)

// PhaseOf returns the phase of a hire.
func PhaseOf(task *models.Task) Phase {
	switch {
	case task.Status.Ended():
		return PhaseSettled
	case task.Replica == nil:
		return PhasePromised
	default:
		return PhaseStarted
	}
}

// executionSource is a subscription to one hire. It has no queue: it compares the hire
// with what it sent last, so a slow subscriber gets fewer events with the same contents.
type executionSource struct {
	hub       *Hub
	operation *graphql.OperationContext
	agentID   string
	taskID    string
	feed      *events.Feed
	watcher   *market.TextWatcher
	wake      func()

	task      *models.Task // as of the latest event; nil before the first read
	lastPhase Phase        // sent last; 0 for none
	sentBytes int          // of text
}

func (h *Hub) openExecutionSource(ctx context.Context, interest Interest, wake func()) *executionSource {
	actor, _ := auth.FromContext(ctx)
	return &executionSource{
		hub: h, operation: graphql.GetOperationContext(ctx), agentID: actor.AgentID, taskID: interest.ExecutionTaskID, wake: wake,
		feed:    h.log.OpenFeed(interest.Interest, nil, func(*models.Event) { wake() }),
		watcher: h.market.WatchText(interest.ExecutionTaskID, wake),
	}
}

// Next returns the payload of the next change: a new phase, or more text. It reports
// done after the hire has settled.
func (s *executionSource) Next(ctx context.Context) (payload []byte, done bool, errs gqlerror.List) {
	if s.lastPhase == PhaseSettled {
		return nil, true, nil
	}
	if err := s.refresh(ctx); err != nil {
		return nil, true, gqlerror.List{s.hub.presentError(ctx, err)}
	}
	phase, text := PhaseOf(s.task), s.watcher.TextAfter(s.sentBytes)
	switch {
	case phase != s.lastPhase:
		s.lastPhase, text = phase, ""
	case text != "":
		s.sentBytes += len(text)
	default:
		return nil, false, nil
	}
	s.wake() // there may be another change
	event := &models.Event{TaskID: &s.taskID, Task: s.task, CreatedAt: models.NewTime(s.hub.market.Now())}
	response := s.hub.render(ctx, s.operation, Event{Event: event, Text: text})
	if response.Data == nil {
		return nil, true, response.Errors
	}
	return transport.MarshalResponse(response), false, nil
}

// refresh loads the task, the first time from the database and then from the feed. The
// feed was opened before the first read, so no change is missed.
func (s *executionSource) refresh(ctx context.Context) (err error) {
	if s.task == nil {
		if s.task, err = s.hub.market.Task(ctx, s.agentID, s.taskID); err != nil {
			return err
		}
	}
	for {
		event, err := s.feed.Next(ctx)
		if event == nil || err != nil {
			return err
		}
		if !s.task.Status.Ended() { // an older event must not reopen it
			task := event.Task.AsOf(models.NewTime(s.hub.market.Now()))
			s.task = &task
		}
	}
}

// Close ends the subscription.
func (s *executionSource) Close() {
	s.feed.Close()
	s.watcher.Close()
}

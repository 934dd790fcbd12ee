package graph

import (
	"context"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// executionUpdated streams how a hire of the caller's goes on. NOT_FOUND for who is
// not party to it, INVALID_INPUT for a task that is no hire.
func (r *Resolver) executionUpdated(ctx context.Context, taskID string) (<-chan *generated.ExecutionUpdatedEvent, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	convert := func(e *models.Event) (*generated.ExecutionUpdatedEvent, error) {
		told := &generated.ExecutionUpdatedEvent{OccurredAt: e.CreatedAt, Change: executionChange(e.Task), Task: e.Task}
		if t, ok := ctx.Value(subscriptionRequestKey{}).(*SubscriptionRequest); ok && t.Text != "" {
			told.Change, told.Text = generated.ExecutionChangeWriting, &t.Text
		}
		return told, nil
	}
	return ResolveSubscription(ctx, convert, func(t *SubscriptionRequest) error {
		task, err := r.Market.Task(ctx, actor.AgentID, taskID)
		if err != nil {
			return err
		}
		if task.Origin != models.Direct {
			return models.Invalid("taskId", "must be that of a hire; taskUpdated tells of other tasks")
		}
		t.ExecutionTaskID = taskID
		t.Interest = agentInterest(actor, func(e *models.Event) bool { return e.Task != nil && *e.TaskID == taskID })
		return nil
	})
}

// executionChange is how a hire stands.
func executionChange(task *models.Task) generated.ExecutionChange {
	switch {
	case task.Status.Ended():
		return generated.ExecutionChangeSettled
	case task.Replica == nil:
		return generated.ExecutionChangePromised
	default:
		return generated.ExecutionChangeStarted
	}
}

// executionSource is a subscription to one hire. It has no queue: it compares what is with
// what it has told, so that a reader that is slow is told less often, of the same.
type executionSource struct {
	hub       *Hub
	operation *graphql.OperationContext
	agentID   string
	taskID    string
	feed      *events.Feed
	watch     *market.TextWatcher
	wake      func()

	task       *models.Task              // as it was last heard of; nil before it was looked at
	lastChange generated.ExecutionChange // the last change that was told
	sentBytes  int                       // of text that were told
}

// subscribeExecution opens a subscription to one hire.
func (s *Hub) subscribeExecution(ctx context.Context, begun *SubscriptionRequest, wake func()) transport.Source {
	actor, _ := auth.FromContext(ctx)
	return &executionSource{
		hub: s, operation: graphql.GetOperationContext(ctx), agentID: actor.AgentID, taskID: begun.ExecutionTaskID, wake: wake,
		feed:  s.log.OpenFeed(begun.Interest, nil, func(*models.Event) { wake() }),
		watch: s.market.WatchText(begun.ExecutionTaskID, wake),
	}
}

// Next tells of what has changed since, the end of the hire last.
func (f *executionSource) Next(ctx context.Context) (payload []byte, over bool, errs gqlerror.List) {
	if f.lastChange == generated.ExecutionChangeSettled {
		return nil, true, nil
	}
	if err := f.refresh(ctx); err != nil {
		return nil, true, gqlerror.List{PresentError(ctx, err)}
	}
	change, text := executionChange(f.task), f.watch.TextAfter(f.sentBytes)
	switch {
	case change != f.lastChange:
		f.lastChange, text = change, ""
	case text != "":
		f.sentBytes += len(text)
	default:
		return nil, false, nil
	}
	f.wake() // there may be more
	event := &models.Event{TaskID: &f.taskID, Task: f.task, CreatedAt: models.NewTime(f.hub.market.Now())}
	response := f.hub.render(ctx, f.operation, &SubscriptionRequest{Event: event, Text: text})
	if response.Data == nil {
		return nil, true, response.Errors
	}
	return transport.MarshalResponse(response), false, nil
}

// refresh finds out how the task stands: first in the store, once the feed hears of
// it, then from the feed.
func (f *executionSource) refresh(ctx context.Context) (err error) {
	if f.task == nil {
		if f.task, err = f.hub.market.Task(ctx, f.agentID, f.taskID); err != nil {
			return err
		}
	}
	for {
		event, err := f.feed.Next(ctx)
		if event == nil || err != nil {
			return err
		}
		if !f.task.Status.Ended() { // what is told late does not bring it back
			task := event.Task.AsOf(models.NewTime(f.hub.market.Now()))
			f.task = &task
		}
	}
}

// Close ends the subscription.
func (f *executionSource) Close() {
	f.feed.Close()
	f.watch.Close()
}

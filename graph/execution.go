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
		if t, ok := ctx.Value(tapKey{}).(*tap); ok && t.text != "" {
			told.Change, told.Text = generated.ExecutionChangeWriting, &t.text
		}
		return told, nil
	}
	return told(ctx, convert, func(t *tap) error {
		task, err := r.Market.Task(ctx, actor.AgentID, taskID)
		if err != nil {
			return err
		}
		if task.Origin != models.Direct {
			return models.Invalid("taskId", "must be that of a hire; taskUpdated tells of other tasks")
		}
		t.hire = taskID
		t.interest = concerning(actor, func(e *models.Event) bool { return e.Task != nil && *e.TaskID == taskID })
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

// following is a subscription to one hire. It has no queue: it compares what is with
// what it has told, so that a reader that is slow is told less often, of the same.
type following struct {
	sharing   *sharing
	operation *graphql.OperationContext
	agent     string
	taskID    string
	feed      *events.Feed
	watch     *market.Watch
	wake      func()

	task  *models.Task              // as it was last heard of; nil before it was looked at
	told  generated.ExecutionChange // the last change that was told
	bytes int                       // of text that were told
}

// follow opens a subscription to one hire.
func (s *sharing) follow(ctx context.Context, begun *tap, wake func()) transport.Source {
	actor, _ := auth.FromContext(ctx)
	return &following{
		sharing: s, operation: graphql.GetOperationContext(ctx), agent: actor.AgentID, taskID: begun.hire, wake: wake,
		feed:  s.log.Listen(begun.interest, nil, func(*models.Event) { wake() }),
		watch: s.market.Watch(begun.hire, wake),
	}
}

// Next tells of what has changed since, the end of the hire last.
func (f *following) Next(ctx context.Context) (payload []byte, over bool, errs gqlerror.List) {
	if f.told == generated.ExecutionChangeSettled {
		return nil, true, nil
	}
	if err := f.look(ctx); err != nil {
		return nil, true, gqlerror.List{Present(ctx, err)}
	}
	change, text := executionChange(f.task), f.watch.After(f.bytes)
	switch {
	case change != f.told:
		f.told, text = change, ""
	case text != "":
		f.bytes += len(text)
	default:
		return nil, false, nil
	}
	f.wake() // there may be more
	event := &models.Event{TaskID: &f.taskID, Task: f.task, CreatedAt: models.At(f.sharing.market.Now())}
	response := f.sharing.render(ctx, f.operation, &tap{one: event, text: text})
	if response.Data == nil {
		return nil, true, response.Errors
	}
	return transport.Payload(response), false, nil
}

// look finds out how the task stands: first in the store, once the feed hears of
// it, then from the feed.
func (f *following) look(ctx context.Context) (err error) {
	if f.task == nil {
		if f.task, err = f.sharing.market.Task(ctx, f.agent, f.taskID); err != nil {
			return err
		}
	}
	for {
		event, err := f.feed.Next(ctx)
		if event == nil || err != nil {
			return err
		}
		if !f.task.Status.Ended() { // what is told late does not bring it back
			task := event.Task.At(models.At(f.sharing.market.Now()))
			f.task = &task
		}
	}
}

// Close ends the subscription.
func (f *following) Close() {
	f.feed.Close()
	f.watch.Close()
}

package graph

import (
	"context"
	"slices"

	"agentmarket.space/server/auth"
	"agentmarket.space/server/events"
	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/market"
	"agentmarket.space/server/models"
)

// taskPosted streams tasks as others post them. Capabilities left out mean the
// caller's own, or all for a stranger; an empty list means all.
func (r *Resolver) taskPosted(ctx context.Context, capabilities []string, minBudget *models.Credits, after *string) (<-chan *generated.TaskPostedEvent, error) {
	if f := tapOf(ctx); f != nil && f.one != nil {
		out := make(chan *generated.TaskPostedEvent, 1)
		defer close(out)
		event, err := r.posted(f.one)
		out <- event
		return out, err
	}
	actor, known := auth.FromContext(ctx)
	words, err := market.Words("capabilities", capabilities, market.MaxPage)
	if err != nil {
		return nil, err
	}
	if capabilities == nil && known {
		agent, err := r.Market.Agent(ctx, actor.AgentID)
		if err != nil {
			return nil, err
		}
		words = agent.Capabilities
	}
	all := len(words) == 0 && (capabilities != nil || !known)
	filter := func(e *models.Event) bool {
		return e.Kind == models.TaskPosted && e.Task != nil && e.Task.PosterID != actor.AgentID &&
			(minBudget == nil || e.Task.Budget >= *minBudget) && (all || overlap(words, e.Task.Capabilities))
	}
	from, err := cursorOf(after)
	if err != nil {
		return nil, err
	}
	if f := tapOf(ctx); f != nil { // they are rendered one by one, for all who ask
		f.events = r.Events.Subscribe(ctx, filter, from)
		return nil, nil //nolint:nilnil // nobody reads it
	}
	return stream(ctx, r, filter, from, r.posted), nil
}

// posted is a posted task as subscribers are told of it.
func (r *Resolver) posted(e *models.Event) (*generated.TaskPostedEvent, error) {
	return &generated.TaskPostedEvent{Cursor: events.Cursor(e.Seq), OccurredAt: e.CreatedAt, Task: r.taskOf(e)}, nil
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(word string) bool { return slices.Contains(b, word) })
}

// taskUpdated streams what happens to tasks that the caller posted or works on.
func (r *Resolver) taskUpdated(ctx context.Context, taskID, after *string) (<-chan *generated.TaskUpdatedEvent, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	filter := func(e *models.Event) bool {
		return e.Task != nil && (taskID == nil || *e.TaskID == *taskID) && (is(e.PosterID, actor) || is(e.WorkerID, actor))
	}
	from, err := cursorOf(after)
	if err != nil {
		return nil, err
	}
	return stream(ctx, r, filter, from, func(e *models.Event) (*generated.TaskUpdatedEvent, error) {
		return &generated.TaskUpdatedEvent{
			Cursor: events.Cursor(e.Seq), OccurredAt: e.CreatedAt, Change: taskChange(e.Kind), Task: r.taskOf(e),
		}, nil
	}), nil
}

func is(id *string, actor auth.Actor) bool { return id != nil && *id == actor.AgentID }

// walletChanged streams what changes the caller's balance.
func (r *Resolver) walletChanged(ctx context.Context, after *string) (<-chan *generated.WalletChangedEvent, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	filter := func(e *models.Event) bool { return e.Kind == models.WalletChanged && is(e.AgentID, actor) }
	from, err := cursorOf(after)
	if err != nil {
		return nil, err
	}
	return stream(ctx, r, filter, from, func(e *models.Event) (*generated.WalletChangedEvent, error) {
		transfer, err := r.Market.Transfer(ctx, actor.AgentID, *e.TransferID)
		if err != nil {
			return nil, err
		}
		wallet, err := r.Market.Wallet(ctx, actor.AgentID)
		return &generated.WalletChangedEvent{
			Cursor: events.Cursor(e.Seq), OccurredAt: e.CreatedAt, Entry: entry(actor.AgentID, transfer), Wallet: wallet,
		}, err
	}), nil
}

// taskOf returns the event's task as it stands now.
func (r *Resolver) taskOf(e *models.Event) *models.Task {
	task := e.Task.At(models.At(r.Market.Now()))
	return &task
}

// cursorOf reads the cursor to begin after, nil for none.
func cursorOf(after *string) (*int64, error) {
	if after == nil {
		return nil, nil //nolint:nilnil // none was given
	}
	cursor, err := events.ParseCursor("after", *after)
	return &cursor, err
}

// stream turns log events into a subscription's. When the stream has to end
// early the client is told why.
func stream[T any](ctx context.Context, r *Resolver, filter events.Filter, from *int64, convert func(*models.Event) (*T, error)) <-chan *T {
	ctx, cancel := context.WithCancel(ctx)
	sub := r.Events.Subscribe(ctx, filter, from)
	out := make(chan *T)
	go func() {
		defer close(out)
		defer cancel()
		for event := range sub.C {
			converted, err := convert(event)
			if err != nil {
				transport.StreamError(ctx, Present(ctx, err))
				return
			}
			select {
			case out <- converted:
			case <-ctx.Done():
				return
			}
		}
		if err := sub.Err(); err != nil {
			transport.StreamError(ctx, Present(ctx, err))
		}
	}()
	return out
}

func taskChange(kind models.EventKind) generated.TaskChange {
	switch kind {
	case models.TaskPosted:
		return generated.TaskChangePosted
	case models.TaskAccepted:
		return generated.TaskChangeAccepted
	case models.TaskReleased:
		return generated.TaskChangeReleased
	case models.TaskCompleted:
		return generated.TaskChangeCompleted
	case models.TaskCancelled:
		return generated.TaskChangeCancelled
	case models.TaskExpired:
		return generated.TaskChangeExpired
	case models.TaskFailed:
		return generated.TaskChangeFailed
	case models.TaskRated:
		return generated.TaskChangeRated
	case models.WalletChanged, models.KeyRevoked: // tell of no task
	}
	return ""
}

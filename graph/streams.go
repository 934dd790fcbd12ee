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
	return stream(ctx, r, filter, after, func(e models.Event) (*generated.TaskPostedEvent, error) {
		return &generated.TaskPostedEvent{Cursor: events.Cursor(e.Seq), OccurredAt: e.CreatedAt, Task: r.taskOf(e)}, nil
	})
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
	return stream(ctx, r, filter, after, func(e models.Event) (*generated.TaskUpdatedEvent, error) {
		return &generated.TaskUpdatedEvent{
			Cursor: events.Cursor(e.Seq), OccurredAt: e.CreatedAt, Change: taskChange(e.Kind), Task: r.taskOf(e),
		}, nil
	})
}

func is(id *string, actor auth.Actor) bool { return id != nil && *id == actor.AgentID }

// walletChanged streams what changes the caller's balance.
func (r *Resolver) walletChanged(ctx context.Context, after *string) (<-chan *generated.WalletChangedEvent, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	filter := func(e *models.Event) bool { return e.Kind == models.WalletChanged && is(e.AgentID, actor) }
	return stream(ctx, r, filter, after, func(e models.Event) (*generated.WalletChangedEvent, error) {
		transfer, err := r.Market.Transfer(ctx, actor.AgentID, *e.TransferID)
		if err != nil {
			return nil, err
		}
		wallet, err := r.Market.Wallet(ctx, actor.AgentID)
		return &generated.WalletChangedEvent{
			Cursor: events.Cursor(e.Seq), OccurredAt: e.CreatedAt, Entry: entry(actor.AgentID, transfer), Wallet: wallet,
		}, err
	})
}

// taskOf returns the event's task as it stands now.
func (r *Resolver) taskOf(e models.Event) *models.Task {
	task := e.Task.At(models.At(r.Market.Now()))
	return &task
}

// stream turns log events into a subscription's. When the stream has to end
// early the client is told why.
func stream[T any](ctx context.Context, r *Resolver, filter events.Filter, after *string, convert func(models.Event) (*T, error)) (<-chan *T, error) {
	var from *int64
	if after != nil {
		cursor, err := events.ParseCursor("after", *after)
		if err != nil {
			return nil, err
		}
		from = &cursor
	}
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
	return out, nil
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
	case models.WalletChanged: // tells of a wallet, not of a task
	}
	return ""
}

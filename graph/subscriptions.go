package graph

import (
	"context"
	"slices"

	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// taskPosted streams tasks as others post them. Capabilities left out mean the
// caller's own, or all for a stranger; an empty list means all.
func (r *Resolver) taskPosted(ctx context.Context, capabilities []string, minBudget *models.Credits, after *string) (<-chan *generated.TaskPostedEvent, error) {
	return ResolveSubscription(ctx, r.taskPostedEvent, func(t *SubscriptionRequest) (err error) {
		if t.After, err = parseCursor(after); err != nil {
			return err
		}
		t.Shareable = true
		t.Interest, err = r.taskPostedInterest(ctx, capabilities, minBudget)
		return err
	})
}

// taskPostedEvent is a posted task as subscribers are told of it.
func (r *Resolver) taskPostedEvent(e *models.Event) (*generated.TaskPostedEvent, error) {
	return &generated.TaskPostedEvent{Cursor: events.Cursor(e.Seq), OccurredAt: e.CreatedAt, Task: r.currentTask(e)}, nil
}

// taskPostedInterest is which posted tasks the caller wants to hear of.
func (r *Resolver) taskPostedInterest(ctx context.Context, capabilities []string, minBudget *models.Credits) (events.Interest, error) {
	actor, known := auth.FromContext(ctx)
	words, err := market.NormalizeCapabilities("capabilities", capabilities, market.MaxPageSize)
	if err != nil {
		return events.Interest{}, err
	}
	if capabilities == nil && known {
		agent, err := r.Market.Agent(ctx, actor.AgentID)
		if err != nil {
			return events.Interest{}, err
		}
		words = agent.Capabilities
	}
	all := len(words) == 0 && (capabilities != nil || !known)
	interest := events.Interest{Filter: func(e *models.Event) bool {
		return e.Kind == models.TaskPosted && e.Task != nil && e.Task.PosterID != actor.AgentID &&
			(minBudget == nil || e.Task.Budget >= *minBudget) && (all || hasOverlap(words, e.Task.Capabilities))
	}}
	if all || len(words) > maxTopics {
		interest.Topics = []events.Topic{events.PostedTasksTopic()}
		return interest, nil
	}
	for _, word := range words {
		interest.Topics = append(interest.Topics, events.CapabilityTopic(word))
	}
	return interest, nil
}

// maxTopics is how many capabilities a subscription is found by. One that nobody
// else asks for takes 244 bytes in the log (measured), and a stranger may ask for
// a hundred with each operation: who asks for more than ten is offered every
// posted task instead, and the filter decides.
const maxTopics = 10

func hasOverlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(word string) bool { return slices.Contains(b, word) })
}

// taskUpdated streams what happens to tasks that the caller posted or works on.
func (r *Resolver) taskUpdated(ctx context.Context, taskID, after *string) (<-chan *generated.TaskUpdatedEvent, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	convert := func(e *models.Event) (*generated.TaskUpdatedEvent, error) {
		return &generated.TaskUpdatedEvent{
			Cursor: events.Cursor(e.Seq), OccurredAt: e.CreatedAt, Change: taskChange(e.Kind), Task: r.currentTask(e),
		}, nil
	}
	return ResolveSubscription(ctx, convert, func(t *SubscriptionRequest) (err error) {
		t.Interest = agentInterest(actor, func(e *models.Event) bool {
			return e.Task != nil && (taskID == nil || *e.TaskID == *taskID) && (isActor(e.PosterID, actor) || isActor(e.WorkerID, actor))
		})
		t.After, err = parseCursor(after)
		return err
	})
}

func isActor(id *string, actor auth.Actor) bool { return id != nil && *id == actor.AgentID }

func agentInterest(actor auth.Actor, filter events.Filter) events.Interest {
	return events.Interest{Topics: []events.Topic{events.AgentTopic(actor.AgentID)}, Filter: filter}
}

// walletChanged streams what changes the caller's balance.
func (r *Resolver) walletChanged(ctx context.Context, after *string) (<-chan *generated.WalletChangedEvent, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	convert := func(e *models.Event) (*generated.WalletChangedEvent, error) {
		transfer, err := r.Market.Transfer(ctx, actor.AgentID, *e.TransferID)
		if err != nil {
			return nil, err
		}
		wallet, err := r.Market.Wallet(ctx, actor.AgentID)
		return &generated.WalletChangedEvent{
			Cursor: events.Cursor(e.Seq), OccurredAt: e.CreatedAt, Entry: ledgerEntry(actor.AgentID, transfer), Wallet: wallet,
		}, err
	}
	return ResolveSubscription(ctx, convert, func(t *SubscriptionRequest) (err error) {
		t.Interest = agentInterest(actor, func(e *models.Event) bool { return e.Kind == models.WalletChanged && isActor(e.AgentID, actor) })
		t.After, err = parseCursor(after)
		return err
	})
}

// webhookChanged streams when the caller's webhook is suspended, and when it is served
// again.
func (r *Resolver) webhookChanged(ctx context.Context, after *string) (<-chan *generated.WebhookChangedEvent, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	convert := func(e *models.Event) (*generated.WebhookChangedEvent, error) {
		change := generated.WebhookChangeSuspended
		if e.Kind == models.EventWebhookResumed {
			change = generated.WebhookChangeResumed
		}
		webhook, err := nilIfNotFound(r.Webhooks.Get(ctx, actor.AgentID))
		return &generated.WebhookChangedEvent{Cursor: events.Cursor(e.Seq), OccurredAt: e.CreatedAt, Change: change, Webhook: webhook}, err
	}
	return ResolveSubscription(ctx, convert, func(t *SubscriptionRequest) (err error) {
		t.Interest = agentInterest(actor, func(e *models.Event) bool {
			return (e.Kind == models.EventWebhookSuspended || e.Kind == models.EventWebhookResumed) && isActor(e.AgentID, actor)
		})
		t.After, err = parseCursor(after)
		return err
	})
}

// currentTask returns the event's task as it stands now.
func (r *Resolver) currentTask(e *models.Event) *models.Task {
	task := e.Task.AsOf(models.NewTime(r.Market.Now()))
	return &task
}

// parseCursor reads the cursor to begin after, nil for none.
func parseCursor(after *string) (*int64, error) {
	if after == nil {
		return nil, nil //nolint:nilnil // none was given
	}
	cursor, err := events.ParseCursor("after", *after)
	return &cursor, err
}

func taskChange(kind models.EventKind) generated.TaskChange {
	switch kind {
	case models.TaskPosted:
		return generated.TaskChangePosted
	case models.TaskAccepted:
		return generated.TaskChangeAccepted
	case models.TaskReleased:
		return generated.TaskChangeReleased
	case models.TaskPromised:
		return generated.TaskChangePromised
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
	case models.WalletChanged, models.EventWebhookSuspended, models.EventWebhookResumed, models.KeyRevoked: // tell of no task
	}
	return ""
}

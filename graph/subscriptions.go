package graph

import (
	"context"

	"agentmarket.space/server/graph/fanout"
	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/models"
)

func (r *Resolver) taskPostedEvent(e fanout.Event) (*generated.TaskPostedEvent, error) {
	return &generated.TaskPostedEvent{Cursor: events.Cursor(e.Seq), OccurredAt: e.CreatedAt, Task: r.currentTask(e)}, nil
}

func (r *Resolver) taskUpdatedEvent(e fanout.Event) (*generated.TaskUpdatedEvent, error) {
	return &generated.TaskUpdatedEvent{
		Cursor: events.Cursor(e.Seq), OccurredAt: e.CreatedAt, Change: taskChange(e.Kind), Task: r.currentTask(e),
	}, nil
}

func executionUpdatedEvent(e fanout.Event) (*generated.ExecutionUpdatedEvent, error) {
	out := &generated.ExecutionUpdatedEvent{OccurredAt: e.CreatedAt, Change: executionChange(e.Task), Task: e.Task}
	if e.Text != "" {
		text := e.Text // e itself must not escape
		out.Change, out.Text = generated.ExecutionChangeWriting, &text
	}
	return out, nil
}

func (r *Resolver) walletChangedEvent(ctx context.Context, e fanout.Event) (*generated.WalletChangedEvent, error) {
	transfer, err := r.Market.Transfer(ctx, *e.AgentID, *e.TransferID)
	if err != nil {
		return nil, err
	}
	wallet, err := r.Market.Wallet(ctx, *e.AgentID)
	return &generated.WalletChangedEvent{
		Cursor: events.Cursor(e.Seq), OccurredAt: e.CreatedAt, Entry: ledgerEntry(*e.AgentID, transfer), Wallet: wallet,
	}, err
}

func (r *Resolver) webhookChangedEvent(ctx context.Context, e fanout.Event) (*generated.WebhookChangedEvent, error) {
	change := generated.WebhookChangeSuspended
	if e.Kind == models.EventWebhookResumed {
		change = generated.WebhookChangeResumed
	}
	webhook, err := nilIfNotFound(r.Webhooks.Get(ctx, *e.AgentID))
	return &generated.WebhookChangedEvent{Cursor: events.Cursor(e.Seq), OccurredAt: e.CreatedAt, Change: change, Webhook: webhook}, err
}

// currentTask returns the event's task in its current state: time may have changed it.
func (r *Resolver) currentTask(e fanout.Event) *models.Task {
	task := e.Task.AsOf(models.NewTime(r.Market.Now()))
	return &task
}

func executionChange(task *models.Task) generated.ExecutionChange {
	switch fanout.PhaseOf(task) {
	case fanout.PhaseSettled:
		return generated.ExecutionChangeSettled
	case fanout.PhasePromised:
		return generated.ExecutionChangePromised
	case fanout.PhaseStarted:
	}
	return generated.ExecutionChangeStarted
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
	case models.WalletChanged, models.EventWebhookSuspended, models.EventWebhookResumed, models.KeyRevoked: // not about a task
	}
	return ""
}

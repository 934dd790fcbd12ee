package markettest

import (
	"context"
	"math"
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// FakeRunner is a market.Runner. It runs agents with OutcomeFunc if that is set, and with
// ResultFunc otherwise. A test may change both.
type FakeRunner struct {
	ResultFunc  func(ctx context.Context, agent *models.Agent, task *models.Task) (string, error)
	OutcomeFunc func(ctx context.Context, task *models.Task, opts market.RunOptions) (market.RunResult, error)
}

// CheckRunnable returns CONFLICT for an agent without an endpoint and a system prompt.
func (*FakeRunner) CheckRunnable(agent *models.Agent) error {
	if agent.ExecutionMode() == models.ModeNone {
		return models.Errorf(models.Conflict, "agent %s does not accept direct hires", agent.ID)
	}
	return nil
}

// Run returns what OutcomeFunc or ResultFunc returns.
func (f *FakeRunner) Run(ctx context.Context, agent *models.Agent, task *models.Task, opts market.RunOptions) (market.RunResult, error) {
	if f.OutcomeFunc != nil {
		return f.OutcomeFunc(ctx, task, opts)
	}
	result, err := f.ResultFunc(ctx, agent, task)
	return market.RunResult{Result: result}, err
}

// FakeWebhooks is a market.Webhooks that stores and delivers nothing. A test may set the
// functions; a nil function does nothing.
type FakeWebhooks struct {
	SubscribeFunc    func() error
	NotifyFunc       func(event *models.Event) error
	OldestNeededFunc func() (eventID int64, err error)
}

// Subscribe calls SubscribeFunc.
func (f *FakeWebhooks) Subscribe(*database.Tx, string, string, []models.WebhookEvent) (models.Webhook, string, error) {
	if f.SubscribeFunc != nil {
		return models.Webhook{}, "", f.SubscribeFunc()
	}
	return models.Webhook{}, "whsec_test", nil
}

// Unsubscribe does nothing.
func (*FakeWebhooks) Unsubscribe(*database.Tx, string) error { return nil }

// Resume does nothing.
func (*FakeWebhooks) Resume(*database.Tx, string) (models.Webhook, error) {
	return models.Webhook{}, nil
}

// EnsureSecret returns a constant.
func (*FakeWebhooks) EnsureSecret(*database.Tx, string) (string, error) { return "whsec_test", nil }

// RotateSecret returns a constant.
func (*FakeWebhooks) RotateSecret(*database.Tx, string, time.Duration) (models.Webhook, string, error) {
	return models.Webhook{}, "whsec_test", nil
}

// Notify calls NotifyFunc.
func (f *FakeWebhooks) Notify(_ *database.Tx, event *models.Event) error {
	if f.NotifyFunc != nil {
		return f.NotifyFunc(event)
	}
	return nil
}

// Redeliver returns NOT_FOUND.
func (*FakeWebhooks) Redeliver(_ *database.Tx, _, deliveryID string) (models.Delivery, error) {
	return models.Delivery{}, models.Errorf(models.NotFound, "delivery %q not found", deliveryID)
}

// FailedDeliveries returns none.
func (*FakeWebhooks) FailedDeliveries(context.Context, string, models.FailedDeliveryQuery) (ids []string, more bool, err error) {
	return nil, false, nil
}

// RedeliverFailed does nothing.
func (*FakeWebhooks) RedeliverFailed(*database.Tx, string, []string) (int, error) { return 0, nil }

// Prune does nothing.
func (*FakeWebhooks) Prune(context.Context) error { return nil }

// OldestNeeded calls OldestNeededFunc, and otherwise returns an id after all events.
func (f *FakeWebhooks) OldestNeeded(context.Context) (eventID int64, err error) {
	if f.OldestNeededFunc != nil {
		return f.OldestNeededFunc()
	}
	return math.MaxInt64, nil
}

package graph

import (
	"context"

	"agentmarket.space/server/graph/fanout"
	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

func (r *agentConnectionResolver) TotalCount(ctx context.Context, obj *generated.AgentConnection) (int, error) {
	count, err := obj.Count.Get(ctx)
	return count.N, err
}

func (r *agentConnectionResolver) TotalCountIsExact(ctx context.Context, obj *generated.AgentConnection) (bool, error) {
	count, err := obj.Count.Get(ctx)
	return count.Exact, err
}

func (r *ledgerEntryResolver) Task(ctx context.Context, objs []*generated.LedgerEntry) ([]*models.Task, error) {
	return r.loadTasks(ctx, collectIDs(objs, func(e *generated.LedgerEntry) *string { return e.TaskID }))
}

func (r *mutationResolver) RegisterAgent(ctx context.Context, input market.RegisterAgentInput) (*generated.RegisterAgentPayload, error) {
	out, err := r.Market.Register(ctx, input)
	if err != nil {
		return nil, err
	}
	return &generated.RegisterAgentPayload{Agent: &out.Agent, APIKey: out.APIKey, WebhookSecret: out.WebhookSecret, Wallet: &out.Wallet}, nil
}

func (r *mutationResolver) UpdateAgent(ctx context.Context, input generated.UpdateAgentInput) (*generated.UpdateAgentPayload, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	changes, err := agentChanges(input)
	if err != nil {
		return nil, err
	}
	agent, err := r.Market.UpdateAgent(ctx, actor, changes)
	return &generated.UpdateAgentPayload{Agent: &agent}, err
}

func (r *mutationResolver) RotateAPIKey(ctx context.Context) (*generated.RotateAPIKeyPayload, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	key, err := r.Market.RotateKey(ctx, actor)
	return &generated.RotateAPIKeyPayload{APIKey: key}, err
}

func (r *mutationResolver) PostTask(ctx context.Context, input market.PostTaskInput) (*generated.PostTaskPayload, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	out, err := r.Market.Post(ctx, actor, input)
	return &generated.PostTaskPayload{Task: &out.Task, Wallet: &out.Wallet}, err
}

func (r *mutationResolver) AcceptTask(ctx context.Context, input generated.AcceptTaskInput) (*generated.AcceptTaskPayload, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	out, err := r.Market.Accept(ctx, actor, input.TaskID)
	return &generated.AcceptTaskPayload{Task: &out.Task, Wallet: &out.Wallet}, err
}

func (r *mutationResolver) CompleteTask(ctx context.Context, input generated.CompleteTaskInput) (*generated.CompleteTaskPayload, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	out, err := r.Market.Complete(ctx, actor, input.TaskID, input.Result)
	return &generated.CompleteTaskPayload{Task: &out.Task, Wallet: &out.Wallet}, err
}

func (r *mutationResolver) CancelTask(ctx context.Context, input generated.CancelTaskInput) (*generated.CancelTaskPayload, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	out, err := r.Market.Cancel(ctx, actor, input.TaskID)
	return &generated.CancelTaskPayload{Task: &out.Task, Wallet: &out.Wallet}, err
}

func (r *mutationResolver) ExtendTask(ctx context.Context, input generated.ExtendTaskInput) (*generated.ExtendTaskPayload, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	task, err := r.Market.Extend(ctx, actor, input.TaskID, input.LeaseMinutes.Value())
	return &generated.ExtendTaskPayload{Task: &task}, err
}

func (r *mutationResolver) ReleaseTask(ctx context.Context, input generated.ReleaseTaskInput) (*generated.ReleaseTaskPayload, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	out, err := r.Market.Release(ctx, actor, input.TaskID)
	return &generated.ReleaseTaskPayload{Task: &out.Task, Wallet: &out.Wallet}, err
}

func (r *mutationResolver) RateTask(ctx context.Context, input market.RateTaskInput) (*generated.RateTaskPayload, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	task, err := r.Market.Rate(ctx, actor, input)
	return &generated.RateTaskPayload{Task: &task}, err
}

func (r *mutationResolver) Execute(ctx context.Context, input market.ExecuteInput) (*generated.ExecutePayload, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	out, err := r.Market.Execute(ctx, actor, input)
	return &generated.ExecutePayload{Task: &out.Task, Result: out.Task.Result, Wallet: &out.Wallet}, err
}

func (r *mutationResolver) StartExecution(ctx context.Context, input market.StartExecutionInput) (*generated.StartExecutionPayload, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	out, err := r.Market.StartExecution(ctx, actor, input)
	return &generated.StartExecutionPayload{Task: &out.Task, Wallet: &out.Wallet}, err
}

func (r *mutationResolver) SetWebhook(ctx context.Context, input generated.SetWebhookInput) (*generated.SetWebhookPayload, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	out, err := r.Market.SetWebhook(ctx, actor, input.URL, input.Events.Value())
	return &generated.SetWebhookPayload{Webhook: &out.Webhook, Secret: out.Secret}, err
}

func (r *mutationResolver) RemoveWebhook(ctx context.Context) (*generated.RemoveWebhookPayload, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.Market.RemoveWebhook(ctx, actor); err != nil {
		return nil, err
	}
	viewer, err := r.viewer(ctx, actor)
	return &generated.RemoveWebhookPayload{Viewer: viewer}, err
}

func (r *mutationResolver) RotateWebhookSecret(ctx context.Context, input generated.RotateWebhookSecretInput) (*generated.RotateWebhookSecretPayload, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	out, err := r.Market.RotateSecret(ctx, actor, input.OverlapMinutes)
	return &generated.RotateWebhookSecretPayload{Webhook: &out.Webhook, Secret: out.Secret}, err
}

func (r *mutationResolver) ResumeWebhook(ctx context.Context) (*generated.ResumeWebhookPayload, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	webhook, err := r.Market.ResumeWebhook(ctx, actor)
	return &generated.ResumeWebhookPayload{Webhook: &webhook}, err
}

func (r *mutationResolver) RedeliverWebhook(ctx context.Context, input generated.RedeliverWebhookInput) (*generated.RedeliverWebhookPayload, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	delivery, err := r.Market.Redeliver(ctx, actor, input.DeliveryID)
	return &generated.RedeliverWebhookPayload{Delivery: &delivery}, err
}

func (r *mutationResolver) RedeliverWebhooks(ctx context.Context, input generated.RedeliverWebhooksInput) (*generated.RedeliverWebhooksPayload, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	out, err := r.Market.RedeliverFailed(ctx, actor, failedDeliveriesQuery(input))
	return &generated.RedeliverWebhooksPayload{RedeliveredCount: out.Count, EndCursor: nilIfEmpty(out.LastID), HasNextPage: out.HasMore}, err
}

func (r *mutationResolver) PingWebhook(ctx context.Context) (*generated.PingWebhookPayload, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return nil, err
	}
	out, err := r.Webhooks.Ping(ctx, actor.AgentID)
	return &generated.PingWebhookPayload{Delivered: out.Attempt.Error == nil, RequestBody: out.RequestBody, Attempt: &out.Attempt}, err
}

func (r *queryResolver) Node(ctx context.Context, id string) (generated.Node, error) {
	return r.node(ctx, id)
}

func (r *queryResolver) Nodes(ctx context.Context, ids []string) ([]generated.Node, error) {
	return r.nodes(ctx, ids)
}

func (r *queryResolver) Viewer(ctx context.Context) (*generated.Viewer, error) {
	actor, ok := auth.FromContext(ctx)
	if !ok {
		return nil, nil
	}
	return r.viewer(ctx, actor)
}

func (r *queryResolver) Agent(ctx context.Context, id string) (*models.Agent, error) {
	return r.Market.Agent(ctx, id)
}

func (r *queryResolver) Agents(ctx context.Context, first *int, after *string, filter *generated.AgentFilter, orderBy *generated.AgentOrder) (*generated.AgentConnection, error) {
	return r.agentConnection(ctx, agentQuery(filter, orderBy), pageFrom(first, after))
}

func (r *queryResolver) Task(ctx context.Context, id string) (*models.Task, error) {
	actor, _ := auth.FromContext(ctx)
	return r.Market.Task(ctx, actor.AgentID, id)
}

func (r *queryResolver) Tasks(ctx context.Context, first *int, after *string, filter *generated.TaskFilter, orderBy *generated.TaskOrder) (*generated.TaskConnection, error) {
	return r.taskConnection(ctx, taskQuery(filter, orderBy), pageFrom(first, after))
}

func (r *queryResolver) Marketplace(ctx context.Context) (*generated.Marketplace, error) {
	return &generated.Marketplace{
		URL: r.PublicURL, StartingCredits: r.Market.Settings.StartingCredits, PlatformFeePercent: models.FeePercent, Version: r.Version,
	}, nil
}

func (r *subscriptionResolver) TaskPosted(ctx context.Context, capabilities []string, minBudget *models.Credits, after *string) (<-chan *generated.TaskPostedEvent, error) {
	return fanout.Render(ctx, r.taskPostedEvent)
}

func (r *subscriptionResolver) TaskUpdated(ctx context.Context, taskID *string, after *string) (<-chan *generated.TaskUpdatedEvent, error) {
	return fanout.Render(ctx, r.taskUpdatedEvent)
}

func (r *subscriptionResolver) ExecutionUpdated(ctx context.Context, taskID string) (<-chan *generated.ExecutionUpdatedEvent, error) {
	return fanout.Render(ctx, executionUpdatedEvent)
}

func (r *subscriptionResolver) WalletChanged(ctx context.Context, after *string) (<-chan *generated.WalletChangedEvent, error) {
	return fanout.Render(ctx, func(e fanout.Event) (*generated.WalletChangedEvent, error) { return r.walletChangedEvent(ctx, e) })
}

func (r *subscriptionResolver) WebhookChanged(ctx context.Context, after *string) (<-chan *generated.WebhookChangedEvent, error) {
	return fanout.Render(ctx, func(e fanout.Event) (*generated.WebhookChangedEvent, error) { return r.webhookChangedEvent(ctx, e) })
}

func (r *taskResolver) Poster(ctx context.Context, objs []*models.Task) ([]*models.Agent, error) {
	return r.loadTaskAgents(ctx, collectIDs(objs, func(t *models.Task) *string { return &t.PosterID }))
}

func (r *taskResolver) Worker(ctx context.Context, objs []*models.Task) ([]*models.Agent, error) {
	return r.loadTaskAgents(ctx, collectIDs(objs, func(t *models.Task) *string { return t.WorkerID }))
}

func (r *taskResolver) Result(ctx context.Context, obj *models.Task) (*string, error) {
	if actor, ok := auth.FromContext(ctx); ok && obj.IsParty(actor.AgentID) {
		return obj.Result, nil
	}
	return nil, nil
}

func (r *taskConnectionResolver) TotalCount(ctx context.Context, obj *generated.TaskConnection) (int, error) {
	count, err := obj.Count.Get(ctx)
	return count.N, err
}

func (r *taskConnectionResolver) TotalCountIsExact(ctx context.Context, obj *generated.TaskConnection) (bool, error) {
	count, err := obj.Count.Get(ctx)
	return count.Exact, err
}

func (r *viewerResolver) Wallet(ctx context.Context, obj *generated.Viewer) (*models.Wallet, error) {
	return r.Market.Wallet(ctx, obj.Agent.ID)
}

func (r *viewerResolver) Webhook(ctx context.Context, obj *generated.Viewer) (*models.Webhook, error) {
	return nilIfNotFound(r.Webhooks.Get(ctx, obj.Agent.ID))
}

func (r *viewerResolver) PostedTasks(ctx context.Context, obj *generated.Viewer, first *int, after *string, status []models.Status) (*generated.TaskConnection, error) {
	return r.taskConnection(ctx, market.TaskQuery{PosterID: obj.Agent.ID, Status: status}, pageFrom(first, after))
}

func (r *viewerResolver) WorkedTasks(ctx context.Context, obj *generated.Viewer, first *int, after *string, status []models.Status) (*generated.TaskConnection, error) {
	return r.taskConnection(ctx, market.TaskQuery{WorkerID: obj.Agent.ID, Status: status}, pageFrom(first, after))
}

func (r *walletResolver) Entries(ctx context.Context, obj *models.Wallet, first *int, after *string, filter *generated.LedgerEntryFilter) (*generated.LedgerEntryConnection, error) {
	return r.entryConnection(ctx, entryQuery(obj.AgentID, filter), pageFrom(first, after))
}

func (r *webhookResolver) SecretHint(ctx context.Context, obj *models.Webhook) (string, error) {
	return r.Webhooks.SecretHint(ctx, obj.AgentID)
}

func (r *webhookResolver) PendingCount(ctx context.Context, obj *models.Webhook) (int, error) {
	return r.Webhooks.CountDeliveries(ctx, obj.AgentID, models.DeliveryPending)
}

func (r *webhookResolver) FailedCount(ctx context.Context, obj *models.Webhook) (int, error) {
	return r.Webhooks.CountDeliveries(ctx, obj.AgentID, models.DeliveryFailed)
}

func (r *webhookResolver) Deliveries(ctx context.Context, obj *models.Webhook, first *int, after *string, status []models.DeliveryStatus) (*generated.WebhookDeliveryConnection, error) {
	return r.deliveryConnection(ctx, obj.AgentID, status, pageFrom(first, after))
}

func (r *webhookDeliveryResolver) Task(ctx context.Context, objs []*models.Delivery) ([]*models.Task, error) {
	return r.loadTasks(ctx, collectIDs(objs, func(d *models.Delivery) *string { return &d.TaskID }))
}

func (r *webhookDeliveryResolver) RequestBody(ctx context.Context, objs []*models.Delivery) ([]*string, error) {
	tasks, err := r.loadTasks(ctx, collectIDs(objs, func(d *models.Delivery) *string { return &d.TaskID }))
	if err != nil {
		return nil, err
	}
	return r.Webhooks.RequestBodies(objs, tasks)
}

func (r *webhookDeliveryResolver) Attempts(ctx context.Context, obj *models.Delivery) ([]*models.Attempt, error) {
	return r.loadAttempts(ctx, obj.ID)
}

func (r *Resolver) AgentConnection() generated.AgentConnectionResolver {
	return &agentConnectionResolver{r}
}

func (r *Resolver) LedgerEntry() generated.LedgerEntryResolver { return &ledgerEntryResolver{r} }

func (r *Resolver) Mutation() generated.MutationResolver { return &mutationResolver{r} }

func (r *Resolver) Query() generated.QueryResolver { return &queryResolver{r} }

func (r *Resolver) Subscription() generated.SubscriptionResolver { return &subscriptionResolver{r} }

func (r *Resolver) Task() generated.TaskResolver { return &taskResolver{r} }

func (r *Resolver) TaskConnection() generated.TaskConnectionResolver {
	return &taskConnectionResolver{r}
}

func (r *Resolver) Viewer() generated.ViewerResolver { return &viewerResolver{r} }

func (r *Resolver) Wallet() generated.WalletResolver { return &walletResolver{r} }

func (r *Resolver) Webhook() generated.WebhookResolver { return &webhookResolver{r} }

func (r *Resolver) WebhookDelivery() generated.WebhookDeliveryResolver {
	return &webhookDeliveryResolver{r}
}

type (
	agentConnectionResolver struct{ *Resolver }
	ledgerEntryResolver     struct{ *Resolver }
	mutationResolver        struct{ *Resolver }
	queryResolver           struct{ *Resolver }
	subscriptionResolver    struct{ *Resolver }
	taskResolver            struct{ *Resolver }
	taskConnectionResolver  struct{ *Resolver }
	viewerResolver          struct{ *Resolver }
	walletResolver          struct{ *Resolver }
	webhookResolver         struct{ *Resolver }
	webhookDeliveryResolver struct{ *Resolver }
)

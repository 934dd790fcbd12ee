package graph

import (
	"context"
	"slices"

	"agentmarket.space/server/graph/fanout"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// interests returns the interest of each subscription field. Together with the resolvers
// of the fields, which render one event, it is all there is to a subscription.
func (r *Resolver) interests() map[string]fanout.InterestFunc {
	return map[string]fanout.InterestFunc{
		"taskPosted":       r.taskPostedInterest,
		"taskUpdated":      taskUpdatedInterest,
		"executionUpdated": r.executionUpdatedInterest,
		"walletChanged":    walletChangedInterest,
		"webhookChanged":   webhookChangedInterest,
	}
}

// taskPostedInterest returns the interest in posted tasks. Without the argument
// capabilities the tasks match the caller's own, or all tasks for an anonymous caller. The
// caller's own tasks are left out, because it cannot accept them. An empty list matches
// all tasks, the caller's own included.
func (r *Resolver) taskPostedInterest(ctx context.Context, args map[string]any) (fanout.Interest, error) {
	after, err := cursorArgument(args)
	if err != nil {
		return fanout.Interest{}, err
	}
	capabilities, minBudget := argument[[]string](args, "capabilities"), argument[*models.Credits](args, "minBudget")
	actor, authenticated := auth.FromContext(ctx)
	wanted, err := market.NormalizeCapabilities("capabilities", capabilities, market.MaxPageSize)
	if err != nil {
		return fanout.Interest{}, err
	}
	if capabilities == nil && authenticated {
		agent, err := r.Market.Agent(ctx, actor.AgentID)
		if err != nil {
			return fanout.Interest{}, err
		}
		wanted = agent.Capabilities
	}
	all := len(wanted) == 0 && (capabilities != nil || !authenticated)
	excluded := actor.AgentID // "" for an anonymous caller: no task has this poster
	if all {
		excluded = ""
	}
	interest := fanout.Interest{After: after}
	interest.Topics = taskPostedTopics(wanted, all)
	interest.Filter = func(e *models.Event) bool {
		return e.Kind == models.TaskPosted && e.Task != nil && e.Task.PosterID != excluded &&
			(minBudget == nil || e.Task.Budget >= *minBudget) && (all || hasOverlap(wanted, e.Task.Capabilities))
	}
	return interest, nil
}

// maxTopics limits the topics of one subscription. A topic with a single subscriber takes
// 244 bytes in the event log (measured), and an anonymous caller may list a hundred
// capabilities in each operation. With more than ten, the subscription gets every posted
// task and filters.
const maxTopics = 10

func taskPostedTopics(capabilities []string, all bool) []events.Topic {
	if all || len(capabilities) > maxTopics {
		return []events.Topic{events.PostedTasksTopic()}
	}
	var topics []events.Topic
	for _, capability := range capabilities {
		topics = append(topics, events.CapabilityTopic(capability))
	}
	return topics
}

func hasOverlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(word string) bool { return slices.Contains(b, word) })
}

// taskUpdatedInterest returns the interest in tasks that the caller posted or works on.
func taskUpdatedInterest(ctx context.Context, args map[string]any) (fanout.Interest, error) {
	taskID := argument[*string](args, "taskId")
	return agentInterest(ctx, args, func(e *models.Event, agentID string) bool {
		return e.Task != nil && (taskID == nil || *e.TaskID == *taskID) && (isAgent(e.PosterID, agentID) || isAgent(e.WorkerID, agentID))
	})
}

// executionUpdatedInterest returns the interest in one hire. NOT_FOUND if the caller is
// not a party to the task; INVALID_INPUT if the task is not a hire.
func (r *Resolver) executionUpdatedInterest(ctx context.Context, args map[string]any) (fanout.Interest, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return fanout.Interest{}, err
	}
	taskID := argument[string](args, "taskId")
	task, err := r.Market.Task(ctx, actor.AgentID, taskID)
	if err != nil {
		return fanout.Interest{}, err
	}
	if task.Origin != models.OriginDirect {
		return fanout.Interest{}, models.FieldErrorf("taskId", "must be the id of a hire; use taskUpdated for other tasks")
	}
	interest := fanout.Interest{ExecutionTaskID: taskID}
	interest.Topics = []events.Topic{events.AgentTopic(actor.AgentID)}
	interest.Filter = func(e *models.Event) bool { return e.Task != nil && *e.TaskID == taskID }
	return interest, nil
}

// walletChangedInterest returns the interest in the caller's balance.
func walletChangedInterest(ctx context.Context, args map[string]any) (fanout.Interest, error) {
	return agentInterest(ctx, args, func(e *models.Event, agentID string) bool {
		return e.Kind == models.WalletChanged && isAgent(e.AgentID, agentID)
	})
}

// webhookChangedInterest returns the interest in suspensions of the caller's webhook.
func webhookChangedInterest(ctx context.Context, args map[string]any) (fanout.Interest, error) {
	return agentInterest(ctx, args, func(e *models.Event, agentID string) bool {
		return (e.Kind == models.EventWebhookSuspended || e.Kind == models.EventWebhookResumed) && isAgent(e.AgentID, agentID)
	})
}

// agentInterest returns the interest in the caller's own events that pass a filter.
// UNAUTHENTICATED for an anonymous caller.
func agentInterest(ctx context.Context, args map[string]any, filter func(e *models.Event, agentID string) bool) (fanout.Interest, error) {
	actor, err := auth.Require(ctx)
	if err != nil {
		return fanout.Interest{}, err
	}
	after, err := cursorArgument(args)
	if err != nil {
		return fanout.Interest{}, err
	}
	interest := fanout.Interest{After: after}
	interest.Topics = []events.Topic{events.AgentTopic(actor.AgentID)}
	interest.Filter = func(e *models.Event) bool { return filter(e, actor.AgentID) }
	return interest, nil
}

func isAgent(id *string, agentID string) bool { return id != nil && *id == agentID }

// argument returns an argument of a field. gqlgen has parsed it as a T.
func argument[T any](args map[string]any, name string) T {
	return args[name].(T) //nolint:errcheck,forcetypeassert // a wrong T is a bug
}

// cursorArgument parses the argument after, nil if it is left out.
func cursorArgument(args map[string]any) (*int64, error) {
	after := argument[*string](args, "after")
	if after == nil {
		return nil, nil //nolint:nilnil // no cursor
	}
	cursor, err := events.ParseCursor("after", *after)
	return &cursor, err
}

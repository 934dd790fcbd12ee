package compat

import (
	"context"

	"github.com/99designs/gqlgen/graphql"

	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// taskResponse is a task. Result is set only for its poster and worker, and never in
// lists.
type taskResponse struct {
	ID                   string          `json:"id" format:"uuid"`
	Title                string          `json:"title"`
	Description          string          `json:"description"`
	Budget               models.Credits  `json:"budget"`
	RequiredCapabilities []string        `json:"required_capabilities" nullable:"false"`
	Status               models.Status   `json:"status"`
	PosterID             string          `json:"poster_id" format:"uuid"`
	AssignedTo           *string         `json:"assigned_to" format:"uuid"`
	Result               *string         `json:"result,omitempty" doc:"Visible to the poster and the worker only. Not in lists."`
	Rating               *ratingResponse `json:"rating,omitempty" doc:"The poster's rating, if there is one."`
	CreatedAt            models.Time     `json:"created_at"`
	OpenUntil            models.Time     `json:"open_until" doc:"Time when an open task expires."`
	LeaseUntil           *models.Time    `json:"lease_until" nullable:"true" doc:"Deadline of the worker. After it, others can accept the task."`
	AcceptedAt           *models.Time    `json:"accepted_at" nullable:"true"`
	CompletedAt          *models.Time    `json:"completed_at" nullable:"true"`
	ClosedAt             *models.Time    `json:"closed_at" nullable:"true" doc:"Time when it was cancelled, expired or failed."`
}

// ratingResponse is a poster's rating.
type ratingResponse struct {
	Score   int     `json:"score" minimum:"1" maximum:"5"`
	Comment *string `json:"comment"`
}

// taskSummary returns a task without its result, as lists show it.
func taskSummary(t *models.Task) taskResponse {
	out := taskResponse{
		ID: t.ID, Title: t.Title, Description: t.Description, Budget: t.Budget, RequiredCapabilities: t.Capabilities,
		Status: t.Status, PosterID: t.PosterID, AssignedTo: t.WorkerID, CreatedAt: t.CreatedAt, OpenUntil: t.OpenUntil,
		LeaseUntil: t.LeaseUntil, AcceptedAt: t.AcceptedAt, CompletedAt: t.CompletedAt, ClosedAt: t.ClosedAt,
	}
	if t.RatingScore != nil {
		out.Rating = &ratingResponse{Score: *t.RatingScore, Comment: t.RatingComment}
	}
	return out
}

// taskDetail returns a task with its result if the caller may see it.
func (h *handler) taskDetail(ctx context.Context, t *models.Task) (taskResponse, error) {
	out := taskSummary(t)
	var err error
	out.Result, err = h.resolver.Task().Result(ctx, t)
	return out, err
}

// postTaskRequest is a task to post.
type postTaskRequest struct {
	Title                string         `json:"title" minLength:"1" maxLength:"200"`
	Description          string         `json:"description" minLength:"1" maxLength:"50000"`
	Budget               models.Credits `json:"budget" minimum:"2" maximum:"1000000000" doc:"Credits to set aside."`
	RequiredCapabilities []string       `json:"required_capabilities,omitempty" nullable:"false" maxItems:"20" doc:"Agents with at least one of these are notified."`
	OpenForMinutes       *int           `json:"open_for_minutes,omitempty" minimum:"1" maximum:"129600" doc:"Minutes until an open task expires. Default: 7 days."`
	LeaseMinutes         *int           `json:"lease_minutes,omitempty" minimum:"1" maximum:"43200" doc:"Minutes that a worker has to complete it. Default: 24 hours."`
}

func (h *handler) postTask(ctx context.Context, c *call, in postTaskRequest) (taskResponse, error) {
	out, err := h.resolver.Mutation().PostTask(ctx, market.PostTaskInput{
		Title: in.Title, Description: in.Description, Budget: in.Budget, RequiredCapabilities: in.RequiredCapabilities,
		OpenForMinutes: in.OpenForMinutes, LeaseMinutes: in.LeaseMinutes,
	})
	if err != nil {
		return taskResponse{}, err
	}
	c.balance = &out.Wallet.Available
	return h.taskDetail(ctx, out.Task)
}

func (h *handler) listTasks(ctx context.Context, c *call, _ noBody) ([]taskResponse, error) {
	params, err := c.listParams()
	if err != nil {
		return nil, err
	}
	statuses, err := params.statuses()
	if err != nil {
		return nil, err
	}
	filter := &generated.TaskFilter{Status: graphql.OmittableOf(statuses), Capability: graphql.OmittableOf(params.capability)}
	page, err := h.resolver.Query().Tasks(ctx, params.first, params.after, filter, nil)
	if err != nil {
		return nil, err
	}
	c.setNextLink(params, page.PageInfo)
	tasks := make([]taskResponse, len(page.Nodes))
	for i, task := range page.Nodes {
		tasks[i] = taskSummary(task)
	}
	return tasks, nil
}

func (h *handler) getTask(ctx context.Context, c *call, _ noBody) (taskResponse, error) {
	task, err := h.resolver.Query().Task(ctx, c.id())
	if err != nil {
		return taskResponse{}, err
	}
	return h.taskDetail(ctx, task)
}

func (h *handler) acceptTask(ctx context.Context, c *call, _ noBody) (taskResponse, error) {
	out, err := h.resolver.Mutation().AcceptTask(ctx, generated.AcceptTaskInput{TaskID: c.id()})
	if err != nil {
		return taskResponse{}, err
	}
	c.balance = &out.Wallet.Available
	return h.taskDetail(ctx, out.Task)
}

// completeTaskRequest is the result of a task.
type completeTaskRequest struct {
	Result string `json:"result" minLength:"1" maxLength:"200000"`
}

func (h *handler) completeTask(ctx context.Context, c *call, in completeTaskRequest) (taskResponse, error) {
	out, err := h.resolver.Mutation().CompleteTask(ctx, generated.CompleteTaskInput{TaskID: c.id(), Result: in.Result})
	if err != nil {
		return taskResponse{}, err
	}
	c.balance = &out.Wallet.Available
	return h.taskDetail(ctx, out.Task)
}

func (h *handler) cancelTask(ctx context.Context, c *call, _ noBody) (taskResponse, error) {
	out, err := h.resolver.Mutation().CancelTask(ctx, generated.CancelTaskInput{TaskID: c.id()})
	if err != nil {
		return taskResponse{}, err
	}
	c.balance = &out.Wallet.Available
	return h.taskDetail(ctx, out.Task)
}

func (h *handler) releaseTask(ctx context.Context, c *call, _ noBody) (taskResponse, error) {
	out, err := h.resolver.Mutation().ReleaseTask(ctx, generated.ReleaseTaskInput{TaskID: c.id()})
	if err != nil {
		return taskResponse{}, err
	}
	c.balance = &out.Wallet.Available
	return h.taskDetail(ctx, out.Task)
}

// extendTaskRequest is a new deadline of the worker.
type extendTaskRequest struct {
	LeaseMinutes *int `json:"lease_minutes,omitempty" minimum:"1" maximum:"43200" doc:"Minutes from now. Default: the lease_minutes of the task."`
}

func (h *handler) extendTask(ctx context.Context, c *call, in extendTaskRequest) (taskResponse, error) {
	out, err := h.resolver.Mutation().ExtendTask(ctx, generated.ExtendTaskInput{TaskID: c.id(), LeaseMinutes: graphql.OmittableOf(in.LeaseMinutes)})
	if err != nil {
		return taskResponse{}, err
	}
	return h.taskDetail(ctx, out.Task)
}

// rateTaskRequest is a rating of a completed task.
type rateTaskRequest struct {
	Score   int     `json:"score" minimum:"1" maximum:"5" doc:"1 (poor) to 5 (excellent)."`
	Comment *string `json:"comment,omitempty" maxLength:"1000"`
}

func (h *handler) rateTask(ctx context.Context, c *call, in rateTaskRequest) (taskResponse, error) {
	out, err := h.resolver.Mutation().RateTask(ctx, market.RateTaskInput{TaskID: c.id(), Score: in.Score, Comment: in.Comment})
	if err != nil {
		return taskResponse{}, err
	}
	return h.taskDetail(ctx, out.Task)
}

package compat

import (
	"context"

	"github.com/99designs/gqlgen/graphql"

	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// taskResponse is a task as the caller may see it. Result is there for poster and
// worker, and never in lists.
type taskResponse struct {
	ID                   string          `json:"id" format:"uuid"`
	Title                string          `json:"title"`
	Description          string          `json:"description"`
	Budget               models.Credits  `json:"budget"`
	RequiredCapabilities []string        `json:"required_capabilities" nullable:"false"`
	Status               models.Status   `json:"status"`
	PosterID             string          `json:"poster_id" format:"uuid"`
	AssignedTo           *string         `json:"assigned_to" format:"uuid"`
	Result               *string         `json:"result,omitempty" doc:"Only poster and worker see it, and not in lists."`
	Rating               *ratingResponse `json:"rating,omitempty" doc:"The poster's judgement, once given."`
	CreatedAt            models.Time     `json:"created_at"`
	OpenUntil            models.Time     `json:"open_until" doc:"When it expires unless a worker has it."`
	LeaseUntil           *models.Time    `json:"lease_until" nullable:"true" doc:"When the worker's time ends and others may take it."`
	AcceptedAt           *models.Time    `json:"accepted_at" nullable:"true"`
	CompletedAt          *models.Time    `json:"completed_at" nullable:"true"`
	ClosedAt             *models.Time    `json:"closed_at" nullable:"true" doc:"When it was cancelled, expired or failed."`
}

// ratingResponse is a poster's judgement.
type ratingResponse struct {
	Score   int     `json:"score" minimum:"1" maximum:"5"`
	Comment *string `json:"comment"`
}

// taskSummary is a task as lists have it.
func taskSummary(t *models.Task) taskResponse {
	shown := taskResponse{
		ID: t.ID, Title: t.Title, Description: t.Description, Budget: t.Budget, RequiredCapabilities: t.Capabilities,
		Status: t.Status, PosterID: t.PosterID, AssignedTo: t.WorkerID, CreatedAt: t.CreatedAt, OpenUntil: t.OpenUntil,
		LeaseUntil: t.LeaseUntil, AcceptedAt: t.AcceptedAt, CompletedAt: t.CompletedAt, ClosedAt: t.ClosedAt,
	}
	if t.RatingScore != nil {
		shown.Rating = &ratingResponse{Score: *t.RatingScore, Comment: t.RatingComment}
	}
	return shown
}

// taskDetail is a task as an answer about it alone has it.
func (d *handler) taskDetail(ctx context.Context, t *models.Task) (taskResponse, error) {
	shown := taskSummary(t)
	var err error
	shown.Result, err = d.resolver.Task().Result(ctx, t)
	return shown, err
}

// postTaskRequest is a task to post.
type postTaskRequest struct {
	Title                string         `json:"title" minLength:"1" maxLength:"200"`
	Description          string         `json:"description" minLength:"1" maxLength:"50000"`
	Budget               models.Credits `json:"budget" minimum:"2" maximum:"1000000000" doc:"Credits to set aside."`
	RequiredCapabilities []string       `json:"required_capabilities,omitempty" nullable:"false" maxItems:"20" doc:"Agents with at least one of them are notified."`
	OpenForMinutes       *int           `json:"open_for_minutes,omitempty" minimum:"1" maximum:"129600" doc:"How long it may stay open; 7 days when left out."`
	LeaseMinutes         *int           `json:"lease_minutes,omitempty" minimum:"1" maximum:"43200" doc:"How long a worker has; 24 hours when left out."`
}

func (d *handler) postTask(ctx context.Context, c *call, in postTaskRequest) (taskResponse, error) {
	out, err := d.resolver.Mutation().PostTask(ctx, market.PostTaskInput{
		Title: in.Title, Description: in.Description, Budget: in.Budget, RequiredCapabilities: in.RequiredCapabilities,
		OpenForMinutes: in.OpenForMinutes, LeaseMinutes: in.LeaseMinutes,
	})
	if err != nil {
		return taskResponse{}, err
	}
	c.balance = &out.Wallet.Available
	return d.taskDetail(ctx, out.Task)
}

func (d *handler) listTasks(ctx context.Context, c *call, _ noBody) ([]taskResponse, error) {
	l, err := c.listParams()
	if err != nil {
		return nil, err
	}
	states, err := l.statuses()
	if err != nil {
		return nil, err
	}
	filter := &generated.TaskFilter{Status: graphql.OmittableOf(states), Capability: graphql.OmittableOf(l.capability)}
	page, err := d.resolver.Query().Tasks(ctx, l.first, l.after, filter, nil)
	if err != nil {
		return nil, err
	}
	c.setNextLink(l, page.PageInfo)
	tasks := make([]taskResponse, len(page.Nodes))
	for i, task := range page.Nodes {
		tasks[i] = taskSummary(task)
	}
	return tasks, nil
}

func (d *handler) getTask(ctx context.Context, c *call, _ noBody) (taskResponse, error) {
	task, err := d.resolver.Query().Task(ctx, c.id())
	if err != nil {
		return taskResponse{}, err
	}
	return d.taskDetail(ctx, task)
}

func (d *handler) acceptTask(ctx context.Context, c *call, _ noBody) (taskResponse, error) {
	out, err := d.resolver.Mutation().AcceptTask(ctx, generated.AcceptTaskInput{TaskID: c.id()})
	if err != nil {
		return taskResponse{}, err
	}
	return d.taskDetail(ctx, out.Task)
}

// completeTaskRequest is a result to hand in.
type completeTaskRequest struct {
	Result string `json:"result" minLength:"1" maxLength:"200000"`
}

func (d *handler) completeTask(ctx context.Context, c *call, in completeTaskRequest) (taskResponse, error) {
	out, err := d.resolver.Mutation().CompleteTask(ctx, generated.CompleteTaskInput{TaskID: c.id(), Result: in.Result})
	if err != nil {
		return taskResponse{}, err
	}
	c.balance = &out.Wallet.Available
	return d.taskDetail(ctx, out.Task)
}

func (d *handler) cancelTask(ctx context.Context, c *call, _ noBody) (taskResponse, error) {
	out, err := d.resolver.Mutation().CancelTask(ctx, generated.CancelTaskInput{TaskID: c.id()})
	if err != nil {
		return taskResponse{}, err
	}
	c.balance = &out.Wallet.Available
	return d.taskDetail(ctx, out.Task)
}

func (d *handler) releaseTask(ctx context.Context, c *call, _ noBody) (taskResponse, error) {
	out, err := d.resolver.Mutation().ReleaseTask(ctx, generated.ReleaseTaskInput{TaskID: c.id()})
	if err != nil {
		return taskResponse{}, err
	}
	return d.taskDetail(ctx, out.Task)
}

// extendTaskRequest is how much more time the caller wants.
type extendTaskRequest struct {
	LeaseMinutes *int `json:"lease_minutes,omitempty" minimum:"1" maximum:"43200" doc:"How long from now; the task's own lease when left out."`
}

func (d *handler) extendTask(ctx context.Context, c *call, in extendTaskRequest) (taskResponse, error) {
	out, err := d.resolver.Mutation().ExtendTask(ctx, generated.ExtendTaskInput{TaskID: c.id(), LeaseMinutes: graphql.OmittableOf(in.LeaseMinutes)})
	if err != nil {
		return taskResponse{}, err
	}
	return d.taskDetail(ctx, out.Task)
}

// rateTaskRequest is the caller's judgement of a completed task.
type rateTaskRequest struct {
	Score   int     `json:"score" minimum:"1" maximum:"5" doc:"1 (poor) to 5 (excellent)."`
	Comment *string `json:"comment,omitempty" maxLength:"1000"`
}

func (d *handler) rateTask(ctx context.Context, c *call, in rateTaskRequest) (taskResponse, error) {
	out, err := d.resolver.Mutation().RateTask(ctx, market.RateTaskInput{TaskID: c.id(), Score: in.Score, Comment: in.Comment})
	if err != nil {
		return taskResponse{}, err
	}
	return d.taskDetail(ctx, out.Task)
}

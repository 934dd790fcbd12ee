package compat

import (
	"context"
	"net/http"
	"strings"

	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// executeRequest is whom to hire and for what.
type executeRequest struct {
	AgentID         string         `json:"agent_id" format:"uuid"`
	TaskDescription string         `json:"task_description" minLength:"1" maxLength:"50000"`
	Budget          models.Credits `json:"budget" minimum:"2" maximum:"1000000000" doc:"What is paid, at least the agent's price."`
}

// executionAnswer is what hiring gave.
type executionAnswer struct {
	TaskID string `json:"task_id" format:"uuid"`
	Result string `json:"result"`
}

func (d *door) execute(ctx context.Context, c *call, in executeRequest) (executionAnswer, error) {
	if c.prefers(respondAsync) {
		return d.start(ctx, c, in)
	}
	out, err := d.graph.Mutation().Execute(ctx, market.ExecuteInput{
		AgentID: in.AgentID, TaskDescription: in.TaskDescription, Budget: in.Budget,
	})
	if err != nil {
		return executionAnswer{}, err
	}
	c.balance = &out.Wallet.Available
	if out.Result == nil { // promised, and not kept while the caller waited
		c.accept(out.Task)
		return executionAnswer{}, nil
	}
	return executionAnswer{TaskID: out.Task.ID, Result: *out.Result}, nil
}

// acceptedAnswer is a hire that goes on.
type acceptedAnswer struct {
	TaskID string        `json:"task_id" format:"uuid"`
	Status models.Status `json:"status"`
}

// start hires without waiting.
func (d *door) start(ctx context.Context, c *call, in executeRequest) (executionAnswer, error) {
	out, err := d.graph.Mutation().StartExecution(ctx, market.StartExecutionInput{
		AgentID: in.AgentID, TaskDescription: in.TaskDescription, Budget: in.Budget,
	})
	if err != nil {
		return executionAnswer{}, err
	}
	c.balance = &out.Wallet.Available
	c.accept(out.Task)
	c.headers.Set("Preference-Applied", respondAsync)
	return executionAnswer{}, nil
}

// accept answers 202 with a task that goes on, instead of what the route returns.
func (c *call) accept(task *models.Task) {
	c.accepted = &acceptedAnswer{TaskID: task.ID, Status: task.Status}
	c.headers = http.Header{"Location": {"/api/tasks/" + task.ID}}
}

// respondAsync is the preference of RFC 7240 not to wait.
const respondAsync = "respond-async"

// prefers reports whether the request has a preference. Its parameters and those
// that are not known are passed over, as the RFC says.
func (c *call) prefers(preference string) bool {
	for _, line := range c.request.Header.Values("Prefer") {
		for one := range strings.SplitSeq(line, ",") {
			name, _, _ := strings.Cut(one, ";")
			if strings.EqualFold(strings.TrimSpace(name), preference) {
				return true
			}
		}
	}
	return false
}

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

// executionResponse is what hiring gave.
type executionResponse struct {
	TaskID string `json:"task_id" format:"uuid"`
	Result string `json:"result"`
}

func (d *handler) execute(ctx context.Context, c *call, in executeRequest) (executionResponse, error) {
	if c.prefers(respondAsync) {
		return d.startExecution(ctx, c, in)
	}
	out, err := d.resolver.Mutation().Execute(ctx, market.ExecuteInput{
		AgentID: in.AgentID, TaskDescription: in.TaskDescription, Budget: in.Budget,
	})
	if err != nil {
		return executionResponse{}, err
	}
	c.balance = &out.Wallet.Available
	if out.Result == nil { // promised, and not kept while the caller waited
		c.setAccepted(out.Task)
		return executionResponse{}, nil
	}
	return executionResponse{TaskID: out.Task.ID, Result: *out.Result}, nil
}

// acceptedResponse is a hire that goes on.
type acceptedResponse struct {
	TaskID string        `json:"task_id" format:"uuid"`
	Status models.Status `json:"status"`
}

// startExecution hires without waiting.
func (d *handler) startExecution(ctx context.Context, c *call, in executeRequest) (executionResponse, error) {
	out, err := d.resolver.Mutation().StartExecution(ctx, market.StartExecutionInput{
		AgentID: in.AgentID, TaskDescription: in.TaskDescription, Budget: in.Budget,
	})
	if err != nil {
		return executionResponse{}, err
	}
	c.balance = &out.Wallet.Available
	c.setAccepted(out.Task)
	c.headers.Set("Preference-Applied", respondAsync)
	return executionResponse{}, nil
}

// setAccepted answers 202 with a task that goes on, instead of what the route returns.
func (c *call) setAccepted(task *models.Task) {
	c.accepted = &acceptedResponse{TaskID: task.ID, Status: task.Status}
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

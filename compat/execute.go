package compat

import (
	"context"
	"net/http"
	"strings"

	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// executeRequest is a request to hire an agent.
type executeRequest struct {
	AgentID         string         `json:"agent_id" format:"uuid"`
	TaskDescription string         `json:"task_description" minLength:"1" maxLength:"50000"`
	Budget          models.Credits `json:"budget" minimum:"2" maximum:"1000000000" doc:"Credits to pay, at least the agent's price."`
}

// executionResponse is the result of a hire.
type executionResponse struct {
	TaskID string `json:"task_id" format:"uuid"`
	Result string `json:"result"`
}

func (h *handler) execute(ctx context.Context, c *call, in executeRequest) (executionResponse, error) {
	if c.prefers(respondAsync) {
		return h.startExecution(ctx, c, in)
	}
	out, err := h.resolver.Mutation().Execute(ctx, market.ExecuteInput{
		AgentID: models.CanonicalID(in.AgentID), TaskDescription: in.TaskDescription, Budget: in.Budget,
	})
	if err != nil {
		return executionResponse{}, err
	}
	c.balance = &out.Wallet.Available
	if out.Result == nil { // the agent will submit its result later
		c.setAccepted(out.Task)
		return executionResponse{}, nil
	}
	return executionResponse{TaskID: out.Task.ID, Result: *out.Result}, nil
}

// acceptedResponse is a hire that is still running.
type acceptedResponse struct {
	TaskID string        `json:"task_id" format:"uuid"`
	Status models.Status `json:"status"`
}

// startExecution hires an agent without waiting for the result.
func (h *handler) startExecution(ctx context.Context, c *call, in executeRequest) (executionResponse, error) {
	out, err := h.resolver.Mutation().StartExecution(ctx, market.StartExecutionInput{
		AgentID: models.CanonicalID(in.AgentID), TaskDescription: in.TaskDescription, Budget: in.Budget,
	})
	if err != nil {
		return executionResponse{}, err
	}
	c.balance = &out.Wallet.Available
	c.setAccepted(out.Task)
	c.headers.Set("Preference-Applied", respondAsync)
	return executionResponse{}, nil
}

// setAccepted makes the response a 202 with a running task.
func (c *call) setAccepted(task *models.Task) {
	c.accepted = &acceptedResponse{TaskID: task.ID, Status: task.Status}
	c.headers = http.Header{"Location": {c.basePath + "/api/tasks/" + task.ID}}
}

// respondAsync is the preference of RFC 7240 for a 202 response.
const respondAsync = "respond-async"

// prefers reports whether the Prefer header has a preference. It ignores parameters
// and unknown preferences, as RFC 7240 requires.
func (c *call) prefers(preference string) bool {
	for _, line := range c.request.Header.Values("Prefer") {
		for entry := range strings.SplitSeq(line, ",") {
			name, _, _ := strings.Cut(entry, ";")
			if strings.EqualFold(strings.TrimSpace(name), preference) {
				return true
			}
		}
	}
	return false
}

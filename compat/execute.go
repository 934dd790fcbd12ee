package compat

import (
	"context"

	"agentmarket.space/server/market"
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
	out, err := d.graph.Mutation().Execute(ctx, market.ExecuteInput{
		AgentID: in.AgentID, TaskDescription: in.TaskDescription, Budget: in.Budget,
	})
	if err != nil {
		return executionAnswer{}, err
	}
	c.balance = &out.Wallet.Available
	shown := executionAnswer{TaskID: out.Task.ID}
	if out.Result != nil {
		shown.Result = *out.Result
	}
	return shown, nil
}

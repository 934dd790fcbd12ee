package models_test

import (
	"testing"

	"agentmarket.space/server/models"
)

func TestAgent_ExecutionMode(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		agent models.Agent
		want  models.ExecutionMode
	}{
		{models.Agent{}, models.ModeNone},
		{models.Agent{SystemPrompt: "You are terse."}, models.ModePrompt},
		{models.Agent{EndpointURL: "https://agent.example.com"}, models.ModeEndpoint},
		{models.Agent{EndpointURL: "https://agent.example.com", SystemPrompt: "You are terse."}, models.ModeEndpoint},
	} {
		if got := row.agent.ExecutionMode(); got != row.want {
			t.Errorf("%+v runs as %s, want %s", row.agent, got, row.want)
		}
	}
}

func TestAgent_ReputationScore(t *testing.T) {
	t.Parallel()
	if score := (&models.Agent{}).ReputationScore(); score != nil {
		t.Errorf("without ratings the score is %v, want nil", *score)
	}
	agent := models.Agent{RatingSum: 9, RatingCount: 2}
	if score := agent.ReputationScore(); score == nil || *score != 4.5 {
		t.Errorf("the mean of 4 and 5 is %v", score)
	}
}

package compat

import (
	"time"

	"agentmarket.space/server/models"
)

// The documented examples, with all fields.
const (
	exampleAgentID  = "0195f0a4-7c00-7000-8000-000000000001"
	examplePosterID = "0195f0a4-7c00-7000-8000-000000000002"
	exampleTaskID   = "0195f0a4-7c00-7000-8000-0000000000a1"
)

func exampleTime() models.Time { return models.NewTime(time.Date(2026, 3, 13, 12, 0, 0, 0, time.UTC)) }

func registerExample() example {
	return example{
		request: registerRequest{
			Name: "ResearchBot", Description: new("I research topics thoroughly"),
			Capabilities: []string{"research", "summarization"}, PricePerTask: new(models.Credits(15)),
			EndpointURL: new("https://my-bot.com/execute"), SystemPrompt: new("You are a research assistant"),
			WebhookURL: new("https://my-bot.com/webhooks"), OwnerEmail: new("me@example.com"),
		},
		data: registrationResponse{ //nolint:gosec // an example, not credentials
			ID: exampleAgentID, Name: "ResearchBot", APIKey: "hex-string-save-this",
			Capabilities: []string{"research", "summarization"}, WebhookSecret: new("whsec_save-this-too"),
		},
		balance: 100,
	}
}

func exampleAgent() agentResponse {
	return agentResponse{
		ID: exampleAgentID, Name: "ResearchBot", Description: "I research topics thoroughly", Capabilities: []string{"research"},
		PricePerTask: 15, ReputationScore: 4.2, TotalTasks: 38, CreatedAt: exampleTime(),
	}
}

func exampleMe() ownAgentResponse {
	return ownAgentResponse{
		agentResponse: exampleAgent(), OwnerEmail: new("me@example.com"), SystemPrompt: new("You are a research assistant"),
		EndpointURL: new("https://my-bot.com/execute"), WebhookURL: new(".../webhooks"),
	}
}

func exampleTask(status models.Status) taskResponse {
	now := exampleTime()
	task := taskResponse{
		ID: exampleTaskID, Title: "Summarize this research paper", Description: "Full text of the paper...", Budget: 25,
		RequiredCapabilities: []string{"research", "summarization"}, Status: status, PosterID: examplePosterID,
		CreatedAt: now, OpenUntil: now.Add(7 * 24 * time.Hour),
	}
	if status == models.Assigned || status == models.Completed {
		task.AssignedTo, task.AcceptedAt, task.LeaseUntil = new(exampleAgentID), &now, new(now.Add(24*time.Hour))
	}
	if status == models.Completed {
		task.CompletedAt, task.Result = &now, new("Here is the completed summary...")
	}
	if status == models.Cancelled {
		task.ClosedAt = &now
	}
	return task
}

func postExample() example {
	return example{
		request: postTaskRequest{
			Title: "Summarize this research paper", Description: "Full text of the paper...", Budget: 25,
			RequiredCapabilities: []string{"research", "summarization"},
		},
		data: exampleTask(models.Open), balance: 75,
	}
}

func completeExample() example {
	return example{
		request: completeTaskRequest{Result: "Here is the completed summary..."},
		data:    exampleTask(models.Completed), balance: 107,
	}
}

func executeExample() example {
	return example{
		request: executeRequest{AgentID: exampleAgentID, TaskDescription: "Write a haiku about distributed systems", Budget: 15},
		data:    executionResponse{TaskID: exampleTaskID, Result: "Packets flow like streams..."},
		balance: 70,
	}
}

func exampleWebhookView() webhookView {
	return webhookView{WebhookURL: new(".../callback"), Status: models.WebhookActive, Events: []models.WebhookEvent{models.WebhookTaskPosted}, Deliveries: &webhookDeliveries{}}
}

func exampleWebhook(masked string) webhookResponse { return webhookResponse{WebhookURL: &masked} }

func extendExample() example {
	return example{request: extendTaskRequest{LeaseMinutes: new(120)}, data: exampleTask(models.Assigned), balance: 85}
}

func rateExample() example {
	task := exampleTask(models.Completed)
	task.Rating = &ratingResponse{Score: 5, Comment: new("Thorough.")}
	return example{request: rateTaskRequest{Score: 5, Comment: new("Thorough.")}, data: task, balance: 75}
}

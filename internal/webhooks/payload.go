package webhooks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"agentmarket.space/server/models"
)

// payload is what is sent of a task. The order of the fields is the order of the
// keys; it is part of the contract and held by golden files.
type payload struct {
	Event          models.WebhookEvent `json:"event"`
	OccurredAt     string              `json:"occurred_at,omitempty"`
	Task           payloadTask         `json:"task"`
	MarketplaceURL string              `json:"marketplace_url"`
}

type payloadTask struct {
	ID           string         `json:"id"`
	Title        string         `json:"title"`
	Description  string         `json:"description"`
	Budget       models.Credits `json:"budget"`
	Capabilities []string       `json:"required_capabilities"`
	CreatedAt    string         `json:"created_at"`
	// Of an event that was asked for, where the task came to stand with it.
	Status     models.Status `json:"status,omitempty"`
	PosterID   string        `json:"poster_id,omitempty"`
	AssignedTo *string       `json:"assigned_to,omitempty"`
}

// requestBody returns the bytes that a delivery sends of its task. They depend only on what
// never changes in both, so every try sends the same.
func requestBody(d *models.Delivery, task *models.Task, marketplaceURL string) ([]byte, error) {
	capabilities := task.Capabilities
	if capabilities == nil {
		capabilities = []string{}
	}
	told := payload{
		Event: d.Event,
		Task: payloadTask{
			ID: task.ID, Title: task.Title, Description: task.Description, Budget: task.Budget,
			Capabilities: capabilities, CreatedAt: rfc3339(task.CreatedAt),
		},
		MarketplaceURL: marketplaceURL,
	}
	if d.Event != models.HookPosted {
		told.OccurredAt = rfc3339(d.CreatedAt)
		told.Task.Status = models.Status(strings.TrimPrefix(string(d.Event), "task."))
		told.Task.PosterID, told.Task.AssignedTo = task.PosterID, d.WorkerID
	}
	return encodePayload(told)
}

func rfc3339(at models.Time) string { return at.AsTime().Format(time.RFC3339) }

// encodePayload returns what is sent as JSON, with <, > and & as they are.
func encodePayload(what any) ([]byte, error) {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(what); err != nil {
		return nil, fmt.Errorf("render a webhook: %w", err)
	}
	return bytes.TrimSuffix(buffer.Bytes(), []byte("\n")), nil
}

package webhooks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"agentmarket.space/server/models"
)

// payload is the body of a task event. The order of the fields is the order of
// the JSON keys. It is part of the API; golden files check it.
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
	// The state of the task after the event; empty for task.posted.
	Status     models.Status `json:"status,omitempty"`
	PosterID   string        `json:"poster_id,omitempty"`
	AssignedTo *string       `json:"assigned_to,omitempty"`
}

// requestBody returns the request body of a delivery. It uses only immutable
// fields of d and task, so every attempt sends the same bytes.
func requestBody(d *models.Delivery, task *models.Task, marketplaceURL string) ([]byte, error) {
	capabilities := task.Capabilities
	if capabilities == nil {
		capabilities = []string{}
	}
	p := payload{
		Event: d.Event,
		Task: payloadTask{
			ID: task.ID, Title: task.Title, Description: task.Description, Budget: task.Budget,
			Capabilities: capabilities, CreatedAt: rfc3339(task.CreatedAt),
		},
		MarketplaceURL: marketplaceURL,
	}
	if d.Event != models.WebhookTaskPosted {
		p.OccurredAt = rfc3339(d.CreatedAt)
		p.Task.Status = models.Status(strings.TrimPrefix(string(d.Event), "task."))
		p.Task.PosterID, p.Task.AssignedTo = task.PosterID, d.WorkerID
	}
	return encodePayload(p)
}

func rfc3339(t models.Time) string { return t.AsTime().Format(time.RFC3339) }

// encodePayload returns v as JSON without a trailing newline. It does not escape
// <, > and &.
func encodePayload(v any) ([]byte, error) {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, fmt.Errorf("encode webhook payload: %w", err)
	}
	return bytes.TrimSuffix(buffer.Bytes(), []byte("\n")), nil
}

package webhooks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"agentmarket.space/server/models"
)

// payload is what is sent of a posted task. The order of the fields is the order
// of the keys; it is part of the contract and held by a golden file.
type payload struct {
	Event          models.EventKind `json:"event"`
	Task           payloadTask      `json:"task"`
	MarketplaceURL string           `json:"marketplace_url"`
}

type payloadTask struct {
	ID           string         `json:"id"`
	Title        string         `json:"title"`
	Description  string         `json:"description"`
	Budget       models.Credits `json:"budget"`
	Capabilities []string       `json:"required_capabilities"`
	CreatedAt    string         `json:"created_at"`
}

// body returns the bytes that tell of a posted task. They depend only on what
// never changes in a task, so every try sends the same.
func body(task *models.Task, marketplaceURL string) ([]byte, error) {
	capabilities := task.Capabilities
	if capabilities == nil {
		capabilities = []string{}
	}
	return render(payload{
		Event: models.TaskPosted,
		Task: payloadTask{
			ID: task.ID, Title: task.Title, Description: task.Description, Budget: task.Budget,
			Capabilities: capabilities, CreatedAt: task.CreatedAt.Std().Format(time.RFC3339),
		},
		MarketplaceURL: marketplaceURL,
	})
}

// render returns what is sent as JSON, with <, > and & as they are.
func render(what any) ([]byte, error) {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(what); err != nil {
		return nil, fmt.Errorf("render a webhook: %w", err)
	}
	return bytes.TrimSuffix(buffer.Bytes(), []byte("\n")), nil
}

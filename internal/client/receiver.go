package client

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/google/uuid"

	"agentmarket.space/server/internal/client/api"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/webhooks"
	"agentmarket.space/server/models"
)

// Receiver is a local webhook receiver under development. It may use plain HTTP,
// while the server calls only public https URLs.
type Receiver struct {
	ForwardTo string `name:"forward-to" placeholder:"URL" help:"Also send each task to this URL, as a signed webhook."`
	Secret    string `env:"AGENTMARKET_WEBHOOK_SECRET" help:"Webhook secret to sign with. Defaults to a secret derived from the API key." placeholder:"SECRET"`
}

// forwardTimeout is the timeout of a forwarded webhook, as on the server.
const forwardTimeout = 15 * time.Second

// Validate checks the URL and the secret.
func (r *Receiver) Validate() error {
	if r.ForwardTo == "" {
		return nil
	}
	return errors.Join(checkURL(r.ForwardTo, "http://127.0.0.1:3000/hook"), checkSecret(r.Secret))
}

// checkSecret returns an error unless secret is empty or a webhook secret.
func checkSecret(secret string) error {
	if _, err := outbound.SignStandardWebhook(secret, "", 0, nil); err != nil {
		return errors.New("--secret or AGENTMARKET_WEBHOOK_SECRET: must be a webhook secret, whsec_ followed by base64")
	}
	return nil
}

// signingSecret returns the configured secret, or one derived from the API key.
func (r *Receiver) signingSecret(key string) string {
	derived := sha256.Sum256([]byte("a webhook secret for development\x00" + key))
	return cmp.Or(r.Secret, "whsec_"+base64.StdEncoding.EncodeToString(derived[:]))
}

// send posts a task.posted webhook to the receiver and returns the response status.
func (r *Receiver) send(ctx context.Context, task *models.Task, marketplaceURL, secret string) (status string, err error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", err
	}
	header, body, err := webhooks.TaskPostedRequest(task, id.String(), marketplaceURL, secret, time.Now()) //nolint:forbidigo // the receiver compares it with the system time
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.ForwardTo, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	request.Header = header
	client := &http.Client{Timeout: forwardTimeout, CheckRedirect: rejectRedirect}
	response, err := client.Do(request)
	if err != nil {
		return "", fmt.Errorf("forward the task: %w", err)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<20))
	return response.Status, response.Body.Close()
}

// webhookTask converts a task to the form that webhooks contain.
func webhookTask(task *api.TaskFields) *models.Task {
	return &models.Task{
		ID: task.Id, Title: task.Title, Description: task.Description, Budget: models.Credits(task.Budget),
		Capabilities: task.RequiredCapabilities, CreatedAt: models.NewTime(task.CreatedAt),
	}
}

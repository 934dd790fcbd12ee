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

// Receiver is a program under development that webhooks are sent to, over plain HTTP
// too: the market itself only calls public https addresses.
type Receiver struct {
	ForwardTo string `name:"forward-to" placeholder:"URL" help:"Send each task there too, signed as the market signs its webhooks."`
	Secret    string `env:"AGENTMARKET_WEBHOOK_SECRET" help:"Secret to sign with; one that stays the same for a key when left out."`
}

// forwardTimeout is how long a receiver may take, as the market's do.
const forwardTimeout = 15 * time.Second

// Validate refuses an address that nothing can be sent to, and what nothing can be
// signed with.
func (r *Receiver) Validate() error {
	if r.ForwardTo == "" {
		return nil
	}
	return errors.Join(checkURL(r.ForwardTo, "http://127.0.0.1:3000/hook"), checkSecret(r.Secret))
}

// checkSecret refuses a secret that no signature can be made with.
func checkSecret(secret string) error {
	if _, err := outbound.SignStandard(secret, "", 0, nil); err != nil {
		return errors.New("--secret or AGENTMARKET_WEBHOOK_SECRET: must be whsec_ and base64, as the market gives it")
	}
	return nil
}

// signingSecret is what requests are signed with for the agent of a key.
func (r *Receiver) signingSecret(key string) string {
	derived := sha256.Sum256([]byte("a webhook secret for development\x00" + key))
	return cmp.Or(r.Secret, "whsec_"+base64.StdEncoding.EncodeToString(derived[:]))
}

// send tells the receiver of a task and returns the status that it answered with.
func (r *Receiver) send(ctx context.Context, task *models.Task, marketplaceURL, secret string) (status string, err error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", err
	}
	header, body, err := webhooks.TaskPostedRequest(task, id.String(), marketplaceURL, secret, time.Now()) //nolint:forbidigo // the receiver compares it with its own clock
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
		return "", fmt.Errorf("forward: %w", err)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<20))
	return response.Status, response.Body.Close()
}

// webhookTask is a task as the market's webhooks tell of it.
func webhookTask(task *api.TaskFields) *models.Task {
	return &models.Task{
		ID: task.Id, Title: task.Title, Description: task.Description, Budget: models.Credits(task.Budget),
		Capabilities: task.RequiredCapabilities, CreatedAt: models.NewTime(task.CreatedAt),
	}
}

// Trigger sends a sample of what the market sends.
type Trigger struct {
	Event  string `arg:"" enum:"task.posted" help:"What to tell of: task.posted."`
	To     string `arg:"" placeholder:"URL" help:"Where to send it."`
	Secret string `env:"AGENTMARKET_WEBHOOK_SECRET" help:"Secret to sign with."`
	Key    string `env:"AGENTMARKET_API_KEY" help:"API key; a secret that is left out follows from it, as in listen."`
	URL    string `default:"http://127.0.0.1:8080" env:"AGENTMARKET_URL" help:"Address that the sample names as the market's."`
}

// Validate refuses an address that nothing can be sent to, or that is not a market's,
// and what nothing can be signed with.
func (c *Trigger) Validate() error {
	return errors.Join(checkURL(c.To, "http://127.0.0.1:3000/hook"), checkURL(c.URL, "http://127.0.0.1:8080"), checkSecret(c.Secret))
}

// Run sends the sample and prints what the receiver answered; it fails on anything
// but 2xx.
func (c *Trigger) Run(ctx context.Context, to Streams) error {
	receiver := Receiver{ForwardTo: c.To, Secret: c.Secret}
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	status, err := receiver.send(ctx, &models.Task{
		ID: id.String(), Title: "A sample", Description: "It was made up to try a receiver.", Budget: 25,
		Capabilities: []string{"sample"}, CreatedAt: models.NewTime(time.Now()), //nolint:forbidigo // a sample of now
	}, c.URL, receiver.signingSecret(c.Key))
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(to.Out, "%s\n", status); err != nil {
		return err
	}
	if c.Secret == "" {
		if _, err := fmt.Fprintf(to.Err, "Signed with %s; give another as --secret.\n", receiver.signingSecret(c.Key)); err != nil {
			return err
		}
	}
	if status[0] != '2' {
		return fmt.Errorf("the receiver answered %s, which is no success", status)
	}
	return nil
}

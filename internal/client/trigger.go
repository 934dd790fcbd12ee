package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"agentmarket.space/server/models"
)

// Trigger sends a sample webhook to a receiver.
type Trigger struct {
	Event  string `arg:"" enum:"task.posted" help:"Type of the event: task.posted."`
	To     string `arg:"" placeholder:"URL" help:"URL of the receiver."`
	Secret string `env:"AGENTMARKET_WEBHOOK_SECRET" help:"Webhook secret to sign with. Defaults to a secret derived from the API key." placeholder:"SECRET"`
	Key    string `env:"AGENTMARKET_API_KEY" help:"API key from which the default secret is derived, as in listen." placeholder:"KEY"`
	URL    string `default:"http://127.0.0.1:8080" env:"AGENTMARKET_URL" help:"Value of marketplace_url in the webhook."`
}

// Validate checks the URLs and the secret.
func (c *Trigger) Validate() error {
	return errors.Join(checkURL(c.To, "http://127.0.0.1:3000/hook"), checkURL(c.URL, "http://127.0.0.1:8080"), checkSecret(c.Secret))
}

// Run sends the webhook and prints the response status. It returns an error for any
// status except 2xx.
func (c *Trigger) Run(ctx context.Context, to Streams) error {
	receiver := Receiver{ForwardTo: c.To, Secret: c.Secret}
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	status, err := receiver.send(ctx, &models.Task{
		ID: id.String(), Title: "Sample task", Description: "Sent by 'agentmarket trigger' to test a receiver.", Budget: 25,
		Capabilities: []string{"sample"}, CreatedAt: models.NewTime(time.Now()), //nolint:forbidigo // a task posted now
	}, c.URL, receiver.signingSecret(c.Key))
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(to.Out, "%s\n", status); err != nil {
		return err
	}
	if c.Secret == "" {
		if _, err := fmt.Fprintf(to.Err, "Signed with %s. Use --secret to sign with another secret.\n", receiver.signingSecret(c.Key)); err != nil {
			return err
		}
	}
	if status[0] != '2' {
		return fmt.Errorf("the receiver returned %s, want a 2xx status", status)
	}
	return nil
}

package client

import (
	"context"
	"encoding/json"
	"fmt"
)

// Listen prints tasks as they are posted, and optionally forwards them to a
// receiver.
type Listen struct {
	Remote   `embed:""`
	Receiver `embed:""`

	Capability []string `help:"Show only tasks of other agents that require one of these capabilities. Defaults to the capabilities of the agent." sep:","`
	After      string   `help:"Start after the event with this cursor. Use 0 to start with the oldest stored event." placeholder:"CURSOR"`
}

// Run prints a line for each task, or a JSON object with --json, until ctx is done.
func (c *Listen) Run(ctx context.Context, to Streams) error {
	if c.ForwardTo != "" {
		if _, err := fmt.Fprintf(to.Err, "Signing secret: %s\n", c.signingSecret(c.Key)); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(to.Err, "Listening for tasks at %s. Press Ctrl-C to stop.\n", c.URL); err != nil {
		return err
	}
	return c.followTasks(ctx, to, c.Capability, Optional(c.After), func(event *taskPostedEvent) error {
		if err := c.printEvent(to, event); err != nil || c.ForwardTo == "" {
			return err
		}
		return c.forward(ctx, to, event)
	})
}

// forward sends the event to the receiver and prints the status. It retries until
// the receiver responds or ctx is done.
func (c *Listen) forward(ctx context.Context, to Streams, event *taskPostedEvent) error {
	for pause := (backoff{}); ; {
		status, err := c.send(ctx, webhookTask(&event.Task), c.URL, c.signingSecret(c.Key))
		if err == nil {
			_, err = fmt.Fprintf(to.Err, "%s: %s\n", c.ForwardTo, status)
			return err
		}
		if _, err := fmt.Fprintf(to.Err, "%v; retrying\n", err); err != nil || !pause.wait(ctx) {
			return err
		}
	}
}

func (c *Listen) printEvent(to Streams, event *taskPostedEvent) error {
	if c.JSON {
		return json.NewEncoder(to.Out).Encode(event)
	}
	_, err := fmt.Fprintf(to.Out, "%s  %s  %d credits  %s\n", formatTime(event.OccurredAt), event.Task.Id, event.Task.Budget, SanitizeLine(event.Task.Title))
	return err
}

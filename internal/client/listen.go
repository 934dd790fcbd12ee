package client

import (
	"context"
	"encoding/json"
	"fmt"
)

// Listen prints tasks as they are posted, and forwards them to a receiver.
type Listen struct {
	Remote   `embed:""`
	Receiver `embed:""`

	Capability []string `help:"Only tasks that ask for one of these; what the agent can do when left out." sep:","`
	After      string   `help:"Begin after the event with this cursor, 0 for all that is kept."`
}

// Run prints a line for each task, with --json an object, until it is interrupted.
func (c *Listen) Run(ctx context.Context, to Streams) error {
	if c.ForwardTo != "" {
		if _, err := fmt.Fprintf(to.Err, "Signing with %s\n", c.signingSecret(c.Key)); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(to.Err, "Listening at %s. Interrupt to end.\n", c.URL); err != nil {
		return err
	}
	return c.followTasks(ctx, to, c.Capability, optional(c.After), func(event *taskPostedEvent) error {
		if err := c.printEvent(to, event); err != nil || c.ForwardTo == "" {
			return err
		}
		return c.forward(ctx, to, event)
	})
}

// forward tells the receiver, until it answers, and says what it answered.
func (c *Listen) forward(ctx context.Context, to Streams, event *taskPostedEvent) error {
	for wait := minBackoff; ; wait = min(2*wait, maxBackoff) {
		status, err := c.send(ctx, webhookTask(&event.Task), c.URL, c.signingSecret(c.Key))
		if err == nil {
			_, err = fmt.Fprintf(to.Err, "%s: %s\n", c.ForwardTo, status)
			return err
		}
		if _, err := fmt.Fprintf(to.Err, "%v; trying again\n", err); err != nil || !Sleep(ctx, wait) {
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

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
	if c.To != "" {
		if _, err := fmt.Fprintf(to.Err, "Signing with %s\n", c.secret(c.Key)); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintf(to.Err, "Listening at %s. Interrupt to end.\n", c.URL); err != nil {
		return err
	}
	return c.follow(ctx, to, c.Capability, given(c.After), func(event *posted) error {
		if err := c.print(to, event); err != nil || c.To == "" {
			return err
		}
		return c.forward(ctx, to, event)
	})
}

// forward tells the receiver, until it answers, and says what it answered.
func (c *Listen) forward(ctx context.Context, to Streams, event *posted) error {
	for wait := leastWait; ; wait = min(2*wait, mostWait) {
		status, err := c.send(ctx, posting(&event.Task), c.URL, c.secret(c.Key))
		if err == nil {
			_, err = fmt.Fprintf(to.Err, "%s: %s\n", c.To, status)
			return err
		}
		if _, err := fmt.Fprintf(to.Err, "%v; trying again\n", err); err != nil || !Waited(ctx, wait) {
			return err
		}
	}
}

func (c *Listen) print(to Streams, event *posted) error {
	if c.JSON {
		return json.NewEncoder(to.Out).Encode(event)
	}
	_, err := fmt.Fprintf(to.Out, "%s  %s  %d credits  %s\n", moment(event.OccurredAt), event.Task.Id, event.Task.Budget, OneLine(event.Task.Title))
	return err
}

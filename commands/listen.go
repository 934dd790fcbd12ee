package commands

import (
	"context"
	"encoding/json"
	"fmt"
)

// Listen prints tasks as they are posted.
type Listen struct {
	Remote `embed:""`

	Capability []string `help:"Only tasks that ask for one of these; what the agent can do when left out." sep:","`
	After      string   `help:"Begin after the event with this cursor, 0 for all that is kept."`
}

// Run prints a line for each task, with --json an object, until it is interrupted.
func (c *Listen) Run(ctx context.Context, to Streams) error {
	if _, err := fmt.Fprintf(to.Err, "Listening at %s. Interrupt to end.\n", c.URL); err != nil {
		return err
	}
	return c.follow(ctx, to, c.Capability, given(c.After), func(event *posted) error { return c.print(to, event) })
}

func (c *Listen) print(to Streams, event *posted) error {
	if c.JSON {
		return json.NewEncoder(to.Out).Encode(event)
	}
	_, err := fmt.Fprintf(to.Out, "%s  %s  %d credits  %s\n", moment(event.OccurredAt), event.Task.Id, event.Task.Budget, oneLine(event.Task.Title))
	return err
}

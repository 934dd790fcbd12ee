package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"agentmarket.space/server/internal/client/api"
)

// Tasks are the commands about tasks.
type Tasks struct {
	List     ListTasks    `cmd:"" default:"withargs" help:"List tasks, newest first (the default)."`
	Show     ShowTask     `cmd:"" help:"Show one task."`
	Post     PostTask     `cmd:"" help:"Post a task; its budget is set aside."`
	Accept   AcceptTask   `cmd:"" help:"Take an open task."`
	Complete CompleteTask `cmd:"" help:"Hand in the result of a task and be paid."`
	Release  ReleaseTask  `cmd:"" help:"Give a task back that you took."`
	Cancel   CancelTask   `cmd:"" help:"Take back an open task that you posted."`
	Rate     RateTask     `cmd:"" help:"Rate a completed task that you posted."`
}

// ListTasks lists tasks.
type ListTasks struct {
	Remote `embed:""`

	Status     []string `help:"Only those in these states: open, assigned, completed, cancelled, expired, failed." enum:"open,assigned,completed,cancelled,expired,failed" sep:","`
	Capability string   `help:"Only those that ask for this capability."`
	Search     string   `help:"Only those with this in their title or description."`
	Limit      int      `default:"20" help:"How many, 1 to 100."`
	After      string   `help:"Go on after this cursor."`
}

// Run prints the tasks.
func (c *ListTasks) Run(ctx context.Context, to Streams) error {
	var states []api.TaskStatus
	for _, state := range c.Status {
		states = append(states, api.TaskStatus(strings.ToUpper(state)))
	}
	answer, err := api.Tasks(ctx, c.client(), &c.Limit, optional(c.After), states, optional(c.Capability), optional(c.Search))
	if err != nil {
		return c.describeError(err)
	}
	lines := []string{row("ID", "STATUS", "BUDGET", "TITLE", "ASKS FOR")}
	for _, task := range answer.Tasks.Nodes {
		lines = append(lines, row(task.Id, statusText(task.Status), task.Budget, task.Title, strings.Join(task.RequiredCapabilities, ",")))
	}
	return c.printPage(to, answer.Tasks, lines, answer.Tasks.PageInfo.HasNextPage, answer.Tasks.PageInfo.EndCursor)
}

func statusText(s api.TaskStatus) string { return strings.ToLower(string(s)) }

// printTask prints one task.
func (r *Remote) printTask(to Streams, task *api.TaskFields) error {
	lines := []string{
		row("ID", task.Id), row("STATUS", statusText(task.Status)), row("BUDGET", task.Budget), row("TITLE", task.Title),
		row("ASKS FOR", strings.Join(task.RequiredCapabilities, ",")), row("POSTER", task.Poster.Id), row("POSTED", formatTime(task.CreatedAt)),
	}
	if task.Worker != nil {
		lines = append(lines, row("WORKER", task.Worker.Id))
	}
	if task.LeaseUntil != nil {
		lines = append(lines, row("TIME UNTIL", formatTime(*task.LeaseUntil)))
	}
	lines = append(lines, row("DESCRIPTION", task.Description))
	if task.Result != nil {
		lines = append(lines, row("RESULT", *task.Result))
	}
	return r.printResult(to, task, lines...)
}

// printBalance says what a caller has after a change.
func (r *Remote) printBalance(to Streams, balance int64) error {
	if r.JSON {
		return nil
	}
	_, err := fmt.Fprintf(to.Err, "You have %d credits to spend.\n", balance)
	return err
}

// ShowTask shows a task.
type ShowTask struct {
	Remote `embed:""`

	ID string `arg:"" help:"Id of the task."`
}

// Run prints the task; its result is there for its poster and worker.
func (c *ShowTask) Run(ctx context.Context, to Streams) error {
	answer, err := api.Task(ctx, c.client(), c.ID)
	if err != nil {
		return c.describeError(err)
	}
	return c.printTask(to, answer.Task)
}

// PostTask posts a task.
type PostTask struct {
	Remote `embed:""`

	Title          string   `arg:"" help:"A short name for the work."`
	Description    string   `help:"The work in full; - reads it from the standard input. The title when left out."`
	Budget         int64    `required:"" help:"Credits to set aside; the worker gets nine tenths."`
	Capability     []string `help:"Agents with one of these are notified; may be given several times." name:"capability" sep:","`
	OpenForMinutes *int     `help:"How many minutes it may stay open." name:"open-for-minutes"`
	LeaseMinutes   *int     `help:"How many minutes a worker has." name:"lease-minutes"`
}

// Run prints the task.
func (c *PostTask) Run(ctx context.Context, to Streams) error {
	description, err := readArgument(to.In, c.Description)
	if err != nil {
		return err
	}
	if description == "" {
		description = c.Title
	}
	answer, err := api.PostTask(ctx, c.client(), c.Title, description, c.Budget, append([]string{}, c.Capability...), c.OpenForMinutes, c.LeaseMinutes)
	if err != nil {
		return c.describeError(err)
	}
	if err := c.printTask(to, &answer.PostTask.Task); err != nil {
		return err
	}
	return c.printBalance(to, answer.PostTask.Wallet.Balance)
}

// readArgument is what an argument says, or with - what the standard input does. It fails
// on what is no text there: JSON would have other bytes instead.
func readArgument(in io.Reader, argument string) (string, error) {
	if argument != "-" {
		return argument, nil
	}
	read, err := io.ReadAll(in)
	if err != nil {
		return "", fmt.Errorf("read standard input: %w", err)
	}
	if !utf8.Valid(read) {
		return "", errors.New("the standard input is no UTF-8 text: encode it, as base64 does")
	}
	return string(read), nil
}

// AcceptTask takes a task.
type AcceptTask struct {
	Remote `embed:""`

	ID string `arg:"" help:"Id of the task."`
}

// Run prints the task.
func (c *AcceptTask) Run(ctx context.Context, to Streams) error {
	answer, err := api.AcceptTask(ctx, c.client(), c.ID)
	if err != nil {
		return c.describeError(err)
	}
	return c.printTask(to, &answer.AcceptTask.Task)
}

// CompleteTask hands in a result.
type CompleteTask struct {
	Remote `embed:""`

	ID     string `arg:"" help:"Id of the task."`
	Result string `arg:"" help:"The result; - reads it from the standard input."`
}

// Run prints the task.
func (c *CompleteTask) Run(ctx context.Context, to Streams) error {
	result, err := readArgument(to.In, c.Result)
	if err != nil {
		return err
	}
	answer, err := api.CompleteTask(ctx, c.client(), c.ID, result)
	if err != nil {
		return c.describeError(err)
	}
	if err := c.printTask(to, &answer.CompleteTask.Task); err != nil {
		return err
	}
	return c.printBalance(to, answer.CompleteTask.Wallet.Balance)
}

// ReleaseTask gives a task back.
type ReleaseTask struct {
	Remote `embed:""`

	ID string `arg:"" help:"Id of the task."`
}

// Run prints the task.
func (c *ReleaseTask) Run(ctx context.Context, to Streams) error {
	answer, err := api.ReleaseTask(ctx, c.client(), c.ID)
	if err != nil {
		return c.describeError(err)
	}
	return c.printTask(to, &answer.ReleaseTask.Task)
}

// CancelTask takes back a task.
type CancelTask struct {
	Remote `embed:""`

	ID string `arg:"" help:"Id of the task."`
}

// Run prints the task.
func (c *CancelTask) Run(ctx context.Context, to Streams) error {
	answer, err := api.CancelTask(ctx, c.client(), c.ID)
	if err != nil {
		return c.describeError(err)
	}
	if err := c.printTask(to, &answer.CancelTask.Task); err != nil {
		return err
	}
	return c.printBalance(to, answer.CancelTask.Wallet.Balance)
}

// RateTask rates a task.
type RateTask struct {
	Remote `embed:""`

	ID      string `arg:"" help:"Id of the task."`
	Score   int    `arg:"" help:"From 1 (poor) to 5 (excellent)."`
	Comment string `help:"Why."`
}

// Run prints the task.
func (c *RateTask) Run(ctx context.Context, to Streams) error {
	answer, err := api.RateTask(ctx, c.client(), c.ID, c.Score, optional(c.Comment))
	if err != nil {
		return c.describeError(err)
	}
	return c.printTask(to, &answer.RateTask.Task)
}

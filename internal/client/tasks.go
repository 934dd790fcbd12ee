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

// Tasks holds the task commands.
type Tasks struct {
	List     ListTasks    `cmd:"" default:"withargs" help:"List tasks, newest first (default)."`
	Show     ShowTask     `cmd:"" help:"Show one task."`
	Post     PostTask     `cmd:"" help:"Post a task. Its budget is held until the task ends."`
	Accept   AcceptTask   `cmd:"" help:"Accept an open task."`
	Complete CompleteTask `cmd:"" help:"Submit the result of a task assigned to you and get paid."`
	Release  ReleaseTask  `cmd:"" help:"Return a task assigned to you, so that another agent can accept it."`
	Cancel   CancelTask   `cmd:"" help:"Cancel an open task that you posted and get its budget back."`
	Rate     RateTask     `cmd:"" help:"Rate a completed task that you posted."`
}

// ListTasks lists tasks.
type ListTasks struct {
	Remote `embed:""`

	Status     []string `help:"Show only tasks with one of these statuses: open, assigned, completed, cancelled, expired, failed." enum:"open,assigned,completed,cancelled,expired,failed" sep:","`
	Capability string   `help:"Show only tasks that require this capability."`
	Search     string   `help:"Show only tasks with this text in their title or description." placeholder:"TEXT"`
	Limit      int      `default:"20" help:"Maximum number of tasks, 1 to 100."`
	After      string   `help:"Continue after this cursor." placeholder:"CURSOR"`
}

// Run prints the tasks, newest first.
func (c *ListTasks) Run(ctx context.Context, to Streams) error {
	var states []api.TaskStatus
	for _, state := range c.Status {
		states = append(states, api.TaskStatus(strings.ToUpper(state)))
	}
	response, err := api.Tasks(ctx, c.client(), &c.Limit, Optional(c.After), states, Optional(c.Capability), Optional(c.Search))
	if err != nil {
		return c.describeError(err)
	}
	lines := []string{row("ID", "STATUS", "BUDGET", "TITLE", "CAPABILITIES")}
	for _, task := range response.Tasks.Nodes {
		lines = append(lines, row(task.Id, statusText(task.Status), task.Budget, task.Title, strings.Join(task.RequiredCapabilities, ",")))
	}
	return c.printPage(to, response.Tasks, lines, response.Tasks.PageInfo.HasNextPage, response.Tasks.PageInfo.EndCursor)
}

func statusText(s api.TaskStatus) string { return strings.ToLower(string(s)) }

// printTask prints a task.
func (r *Remote) printTask(to Streams, task *api.TaskFields) error {
	lines := []string{
		row("ID", task.Id), row("STATUS", statusText(task.Status)), row("BUDGET", task.Budget), row("TITLE", task.Title),
		row("CAPABILITIES", strings.Join(task.RequiredCapabilities, ",")), row("POSTER", task.Poster.Id), row("POSTED", formatTime(task.CreatedAt)),
	}
	if task.Worker != nil {
		lines = append(lines, row("WORKER", task.Worker.Id))
	}
	if task.LeaseUntil != nil {
		lines = append(lines, row("LEASE UNTIL", formatTime(*task.LeaseUntil)))
	}
	lines = append(lines, row("DESCRIPTION", task.Description))
	if task.Result != nil {
		lines = append(lines, row("RESULT", *task.Result))
	}
	return r.printResult(to, task, lines...)
}

// ShowTask shows a task.
type ShowTask struct {
	Remote `embed:""`

	ID string `arg:"" help:"ID of the task."`
}

// Run prints the task. Only its poster and its worker see the result.
func (c *ShowTask) Run(ctx context.Context, to Streams) error {
	response, err := api.Task(ctx, c.client(), c.ID)
	if err != nil {
		return c.describeError(err)
	}
	return c.printTask(to, response.Task)
}

// PostTask posts a task.
type PostTask struct {
	Remote `embed:""`

	Title          string   `arg:"" help:"Title of the task."`
	Description    string   `help:"Description of the work. Use - to read standard input. Defaults to the title." placeholder:"TEXT"`
	Budget         int64    `required:"" help:"Budget in credits. The worker receives 90 percent." placeholder:"CREDITS"`
	Capability     []string `help:"Required capability. Agents with one of them are notified. Repeat the flag or separate values with commas." name:"capability" sep:","`
	OpenForMinutes *int     `help:"Minutes until the open task expires. Defaults to the server setting." placeholder:"MINUTES" name:"open-for-minutes"`
	LeaseMinutes   *int     `help:"Minutes a worker has to complete the task. Defaults to the server setting." placeholder:"MINUTES" name:"lease-minutes"`
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
	response, err := api.PostTask(ctx, c.client(), c.Title, description, c.Budget, append([]string{}, c.Capability...), c.OpenForMinutes, c.LeaseMinutes)
	if err != nil {
		return c.describeError(err)
	}
	if err := c.printTask(to, &response.PostTask.Task); err != nil {
		return err
	}
	return c.printBalance(to, response.PostTask.Wallet.Balance)
}

// readArgument returns the argument, or standard input if the argument is "-".
// Standard input must be UTF-8, because JSON cannot carry other bytes.
func readArgument(in io.Reader, argument string) (string, error) {
	if argument != "-" {
		return argument, nil
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return "", fmt.Errorf("read standard input: %w", err)
	}
	if !utf8.Valid(text) {
		return "", errors.New("standard input is not valid UTF-8: encode binary data, for example with base64")
	}
	return string(text), nil
}

// AcceptTask accepts an open task.
type AcceptTask struct {
	Remote `embed:""`

	ID string `arg:"" help:"ID of the task."`
}

// Run prints the task.
func (c *AcceptTask) Run(ctx context.Context, to Streams) error {
	response, err := api.AcceptTask(ctx, c.client(), c.ID)
	if err != nil {
		return c.describeError(err)
	}
	return c.printTask(to, &response.AcceptTask.Task)
}

// CompleteTask submits the result of a task.
type CompleteTask struct {
	Remote `embed:""`

	ID     string `arg:"" help:"ID of the task."`
	Result string `arg:"" help:"Result of the task. Use - to read standard input."`
}

// Run prints the task.
func (c *CompleteTask) Run(ctx context.Context, to Streams) error {
	result, err := readArgument(to.In, c.Result)
	if err != nil {
		return err
	}
	response, err := api.CompleteTask(ctx, c.client(), c.ID, result)
	if err != nil {
		return c.describeError(err)
	}
	if err := c.printTask(to, &response.CompleteTask.Task); err != nil {
		return err
	}
	return c.printBalance(to, response.CompleteTask.Wallet.Balance)
}

// ReleaseTask returns an assigned task.
type ReleaseTask struct {
	Remote `embed:""`

	ID string `arg:"" help:"ID of the task."`
}

// Run prints the task.
func (c *ReleaseTask) Run(ctx context.Context, to Streams) error {
	response, err := api.ReleaseTask(ctx, c.client(), c.ID)
	if err != nil {
		return c.describeError(err)
	}
	return c.printTask(to, &response.ReleaseTask.Task)
}

// CancelTask cancels an open task.
type CancelTask struct {
	Remote `embed:""`

	ID string `arg:"" help:"ID of the task."`
}

// Run prints the task.
func (c *CancelTask) Run(ctx context.Context, to Streams) error {
	response, err := api.CancelTask(ctx, c.client(), c.ID)
	if err != nil {
		return c.describeError(err)
	}
	if err := c.printTask(to, &response.CancelTask.Task); err != nil {
		return err
	}
	return c.printBalance(to, response.CancelTask.Wallet.Balance)
}

// RateTask rates a completed task.
type RateTask struct {
	Remote `embed:""`

	ID      string `arg:"" help:"ID of the task."`
	Score   int    `arg:"" help:"Rating from 1 (poor) to 5 (excellent)."`
	Comment string `help:"Comment on the rating." placeholder:"TEXT"`
}

// Run prints the task.
func (c *RateTask) Run(ctx context.Context, to Streams) error {
	response, err := api.RateTask(ctx, c.client(), c.ID, c.Score, Optional(c.Comment))
	if err != nil {
		return c.describeError(err)
	}
	return c.printTask(to, &response.RateTask.Task)
}

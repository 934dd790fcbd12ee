package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"agentmarket.space/server/internal/client/api"
)

// Worker runs a shell command for each task.
type Worker struct {
	Remote `embed:""`

	Exec       string   `required:"" placeholder:"COMMAND" help:"Shell command to run for each task. It reads the description from standard input and writes the result to standard output. AGENTMARKET_TASK holds the other fields as JSON."`
	Capability []string `help:"Accept only tasks that require one of these capabilities. Defaults to the capabilities of the agent." sep:","`
	Parallel   int      `default:"1" help:"Maximum number of tasks to run at the same time."`
	Once       bool     `help:"Stop after one task."`

	agentID string // set by loadAgent
}

const (
	// pollInterval is the interval between two listings of open tasks. A released task
	// is open again without a new event.
	pollInterval = 30 * time.Second
	// killTimeout is the time between interrupting and killing a command.
	killTimeout = 5 * time.Second
)

// Validate checks --parallel and --exec.
func (c *Worker) Validate() error {
	switch {
	case c.Parallel < 1:
		return errors.New("--parallel must be at least 1")
	case strings.TrimSpace(c.Exec) == "":
		return errors.New("--exec must not be empty")
	}
	return nil
}

// Run accepts open tasks, oldest first, runs the command and submits its output,
// until ctx is done. It releases a task whose command fails.
func (c *Worker) Run(ctx context.Context, to Streams) error {
	if err := c.loadAgent(ctx); err != nil {
		return err
	}
	_, err := fmt.Fprintf(to.Err, "Waiting for tasks at %s (capabilities: %s). Press Ctrl-C to stop.\n", c.URL, strings.Join(c.Capability, ", "))
	if err != nil {
		return err
	}
	listening, stop := context.WithCancelCause(ctx)
	var group sync.WaitGroup
	defer group.Wait() // finish running tasks
	defer stop(nil)
	wake := make(chan struct{}, 1)
	group.Go(func() {
		stop(c.followTasks(listening, to, c.Capability, nil, func(*taskPostedEvent) error {
			select {
			case wake <- struct{}{}:
			default: // a wake-up is already pending
			}
			return nil
		}))
	})
	err = c.acceptTasks(listening, to, &group, wake)
	if cause := context.Cause(listening); err == nil && ctx.Err() == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// loadAgent checks the API key and loads the id of the agent, and its capabilities unless
// the flag sets them.
func (c *Worker) loadAgent(ctx context.Context) error {
	response, err := api.Viewer(ctx, c.client())
	switch {
	case err != nil:
		return c.describeError(err)
	case response.Viewer == nil:
		return errors.New("the worker command needs an API key: " + missingKeyHelp)
	case len(c.Capability) == 0:
		c.Capability = response.Viewer.Agent.Capabilities
	}
	c.agentID = response.Viewer.Agent.Id
	if len(c.Capability) == 0 {
		return errors.New("the agent has no capabilities: set --capability")
	}
	return nil
}

// acceptTasks accepts tasks until ctx is done, and runs up to c.Parallel of them at
// the same time.
func (c *Worker) acceptTasks(ctx context.Context, to Streams, group *sync.WaitGroup, wake <-chan struct{}) error {
	slots := make(chan struct{}, c.Parallel)
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	skipped := map[string]bool{} // ids of tasks that this worker does not accept again
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		task, err := c.acceptNext(ctx, skipped)
		switch {
		case err != nil && ctx.Err() == nil:
			_, _ = fmt.Fprintf(to.Err, "%v; retrying\n", err)
			fallthrough
		case task == nil:
			<-slots
			select {
			case <-wake:
			case <-ticker.C:
			case <-ctx.Done():
				return nil
			}
			continue
		}
		skipped[task.Id] = true // also if it fails and is released
		if c.Once {
			return c.doTask(ctx, to, task)
		}
		group.Go(func() {
			defer func() { <-slots }()
			if err := c.doTask(ctx, to, task); err != nil {
				_, _ = fmt.Fprintf(to.Err, "%s: %v\n", task.Id, err)
			}
		})
	}
}

// acceptNext accepts the oldest open task that the worker did not post and has not
// skipped. It returns nil if there is none.
func (c *Worker) acceptNext(ctx context.Context, skipped map[string]bool) (*api.TaskFields, error) {
	tasks := newOpenTasks(&c.Remote, c.Capability, func(task *api.TaskFields) bool {
		return task.Poster.Id == c.agentID || skipped[task.Id]
	})
	for {
		task, err := tasks.next(ctx)
		if task == nil || err != nil {
			return nil, err
		}
		accepted, err := retryUntilDone(ctx, func(ctx context.Context) (*api.AcceptTaskResponse, error) {
			return api.AcceptTask(ctx, c.client(), task.Id)
		})
		switch CodeOf(err) {
		case "CONFLICT", "FORBIDDEN", "NOT_FOUND": // another agent was faster, or the task is not open
			continue
		}
		if err != nil {
			return nil, c.describeError(err)
		}
		return &accepted.AcceptTask.Task, nil
	}
}

// doTask runs the command for an accepted task, and submits its output or releases
// the task. After ctx is done it still has requestTimeout for that.
func (c *Worker) doTask(ctx context.Context, to Streams, task *api.TaskFields) error {
	_, _ = fmt.Fprintf(to.Err, "%s: %s, %d credits\n", task.Id, SanitizeLine(task.Title), task.Budget)
	result, err := c.runCommand(ctx, to, task)
	reportCtx, cancel := withGracePeriod(ctx, requestTimeout)
	defer cancel()
	if err != nil {
		return c.releaseTask(reportCtx, task, err)
	}
	completed, err := retryUntilDone(reportCtx, func(ctx context.Context) (*api.CompleteTaskResponse, error) {
		return api.CompleteTask(ctx, c.client(), task.Id, result)
	})
	switch code := CodeOf(err); {
	case code == "INVALID_INPUT" || code == "PAYLOAD_TOO_LARGE": // too long, or not text
		return c.releaseTask(reportCtx, task, c.describeError(err))
	case err != nil:
		return c.describeError(err)
	}
	if c.JSON {
		return json.NewEncoder(to.Out).Encode(completed.CompleteTask)
	}
	_, err = fmt.Fprintf(to.Out, "%s: completed, balance %d credits\n", task.Id, completed.CompleteTask.Wallet.Balance)
	return err
}

// releaseTask releases a task that failed with cause. The error includes cause.
func (c *Worker) releaseTask(ctx context.Context, task *api.TaskFields, cause error) error {
	_, err := retryUntilDone(ctx, func(ctx context.Context) (*api.ReleaseTaskResponse, error) {
		return api.ReleaseTask(ctx, c.client(), task.Id)
	})
	return errors.Join(fmt.Errorf("released: %w", cause), c.describeError(err))
}

// withGracePeriod returns a context that is done d after ctx is.
func withGracePeriod(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	extended, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(d, cancel) })
	return extended, func() { stop(); cancel() }
}

// runCommand runs the command for a task and returns its standard output.
func (c *Worker) runCommand(ctx context.Context, to Streams, task *api.TaskFields) (string, error) {
	fields := *task // a description can exceed the size limit of the environment
	fields.Description, fields.Result = "", nil
	taskJSON, err := json.Marshal(fields)
	if err != nil {
		return "", err
	}
	command := exec.CommandContext(ctx, "/bin/sh", "-c", c.Exec) //nolint:gosec // the user chooses the command; the task is not part of it
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = killTimeout
	command.Env = append(withoutAPIKey(os.Environ()), "AGENTMARKET_TASK="+string(taskJSON))
	command.Stdin, command.Stderr = strings.NewReader(task.Description), to.Err
	var out bytes.Buffer
	command.Stdout = &out
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("%s: %w", c.Exec, err)
	}
	switch {
	case out.Len() == 0:
		return "", fmt.Errorf("%s: no output", c.Exec)
	case !utf8.Valid(out.Bytes()): // JSON would replace the invalid bytes, and the poster would pay for them
		return "", fmt.Errorf("%s: output is not valid UTF-8", c.Exec)
	}
	return out.String(), nil
}

// withoutAPIKey removes the API key from an environment. The command handles
// untrusted input and does not need the key.
func withoutAPIKey(environment []string) []string {
	return slices.DeleteFunc(environment, func(entry string) bool { return strings.HasPrefix(entry, "AGENTMARKET_API_KEY=") })
}

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

// Worker does tasks with a program.
type Worker struct {
	Remote `embed:""`

	Exec       string   `required:"" placeholder:"COMMAND" help:"Shell command that does a task: its description on the standard input, its result on the standard output. AGENTMARKET_TASK has the rest of the task as JSON."`
	Capability []string `help:"Only tasks that ask for one of these; what the agent can do when left out." sep:","`
	Parallel   int      `default:"1" help:"How many tasks to do at once."`
	Once       bool     `help:"End after one task."`
}

const (
	// pollInterval is how often a worker looks for open tasks that nothing was heard
	// of: a task that its worker gave back is not posted again.
	pollInterval = 30 * time.Second
	// killTimeout is how long a command has to end once it is told to.
	killTimeout = 5 * time.Second
)

// Validate refuses to do no task at once, or with nothing.
func (c *Worker) Validate() error {
	switch {
	case c.Parallel < 1:
		return errors.New("--parallel must be at least 1")
	case strings.TrimSpace(c.Exec) == "":
		return errors.New("--exec must not be empty")
	}
	return nil
}

// Run takes open tasks, the longest open first, does them and hands in what comes
// of it, until it is interrupted. A task whose command fails is given back.
func (c *Worker) Run(ctx context.Context, to Streams) error {
	if err := c.loadCapabilities(ctx); err != nil {
		return err
	}
	_, err := fmt.Fprintf(to.Err, "Working at %s on %s. Interrupt to end.\n", c.URL, strings.Join(c.Capability, ", "))
	if err != nil {
		return err
	}
	listening, stop := context.WithCancelCause(ctx)
	var group sync.WaitGroup
	defer group.Wait() // what is under way is finished
	defer stop(nil)
	heard := make(chan struct{}, 1)
	group.Go(func() {
		stop(c.followTasks(listening, to, c.Capability, nil, func(*taskPostedEvent) error {
			select {
			case heard <- struct{}{}:
			default: // it will be looked anyway
			}
			return nil
		}))
	})
	err = c.acceptTasks(listening, to, &group, heard)
	if cause := context.Cause(listening); err == nil && ctx.Err() == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// loadCapabilities makes sure of a key, and of what the agent can do.
func (c *Worker) loadCapabilities(ctx context.Context) error {
	answer, err := api.Viewer(ctx, c.client())
	switch {
	case err != nil:
		return c.describeError(err)
	case answer.Viewer == nil:
		return errors.New("a worker is an agent: give --key or AGENTMARKET_API_KEY; 'agentmarket register NAME' makes one")
	case len(c.Capability) == 0:
		c.Capability = answer.Viewer.Agent.Capabilities
	}
	if len(c.Capability) == 0 {
		return errors.New("the agent has no capabilities: give --capability")
	}
	return nil
}

// acceptTasks takes tasks for as long as ctx lasts, and has each done beside the others.
func (c *Worker) acceptTasks(ctx context.Context, to Streams, group *sync.WaitGroup, heard <-chan struct{}) error {
	free := make(chan struct{}, c.Parallel)
	again := time.NewTicker(pollInterval)
	defer again.Stop()
	passed := map[string]bool{} // tasks that are not for this worker
	for {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		task, err := c.acceptNext(ctx, passed)
		switch {
		case err != nil && ctx.Err() == nil:
			_, _ = fmt.Fprintf(to.Err, "%v; trying again\n", err)
			fallthrough
		case task == nil:
			<-free
			select {
			case <-heard:
			case <-again.C:
			case <-ctx.Done():
				return nil
			}
			continue
		}
		passed[task.Id] = true // whatever comes of it, it is not taken twice
		if c.Once {
			return c.doTask(ctx, to, task)
		}
		group.Go(func() {
			defer func() { <-free }()
			if err := c.doTask(ctx, to, task); err != nil {
				_, _ = fmt.Fprintf(to.Err, "%s: %v\n", task.Id, err)
			}
		})
	}
}

// acceptNext accepts the task that has been open for longest of those that the worker
// can do; nil when there is none.
func (c *Worker) acceptNext(ctx context.Context, passed map[string]bool) (*api.TaskFields, error) {
	for _, capability := range c.Capability {
		most := 100
		page, err := api.Tasks(ctx, c.client(), &most, nil, []api.TaskStatus{api.TaskStatusOpen}, &capability, nil)
		if err != nil {
			return nil, c.describeError(err)
		}
		for _, task := range slices.Backward(page.Tasks.Nodes) {
			if passed[task.Id] {
				continue
			}
			accepted, err := retryUntilDone(ctx, func(ctx context.Context) (*api.AcceptTaskResponse, error) {
				return api.AcceptTask(ctx, c.client(), task.Id)
			})
			switch CodeOf(err) {
			case "CONFLICT", "FORBIDDEN", "NOT_FOUND": // another was faster, or it is the agent's own
				passed[task.Id] = true
				continue
			}
			if err != nil {
				return nil, c.describeError(err)
			}
			return &accepted.AcceptTask.Task, nil
		}
	}
	return nil, nil //nolint:nilnil // there is none
}

// doTask does a task that was accepted. It is finished even when the worker is told
// to end meanwhile.
func (c *Worker) doTask(ctx context.Context, to Streams, task *api.TaskFields) error {
	_, _ = fmt.Fprintf(to.Err, "%s: %s, %d credits\n", task.Id, SanitizeLine(task.Title), task.Budget)
	result, err := c.runCommand(ctx, to, task)
	telling, cancel := withGracePeriod(ctx, requestTimeout)
	defer cancel()
	if err != nil {
		return c.releaseTask(telling, task, err)
	}
	completed, err := retryUntilDone(telling, func(ctx context.Context) (*api.CompleteTaskResponse, error) {
		return api.CompleteTask(ctx, c.client(), task.Id, result)
	})
	switch code := CodeOf(err); {
	case code == "INVALID_INPUT" || code == "PAYLOAD_TOO_LARGE": // too long, or no text
		return c.releaseTask(telling, task, c.describeError(err))
	case err != nil:
		return c.describeError(err)
	}
	if c.JSON {
		return json.NewEncoder(to.Out).Encode(completed.CompleteTask)
	}
	_, err = fmt.Fprintf(to.Out, "%s: completed, you have %d credits\n", task.Id, completed.CompleteTask.Wallet.Balance)
	return err
}

// releaseTask gives a task back that could not be done, and says why not.
func (c *Worker) releaseTask(ctx context.Context, task *api.TaskFields, why error) error {
	_, err := retryUntilDone(ctx, func(ctx context.Context) (*api.ReleaseTaskResponse, error) {
		return api.ReleaseTask(ctx, c.client(), task.Id)
	})
	return errors.Join(fmt.Errorf("given back: %w", why), c.describeError(err))
}

// withGracePeriod is ctx that goes on for a while after its end.
func withGracePeriod(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	later, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(d, cancel) })
	return later, func() { stop(); cancel() }
}

// runCommand runs the command on a task and returns what it wrote.
func (c *Worker) runCommand(ctx context.Context, to Streams, task *api.TaskFields) (string, error) {
	short := *task // an environment has room for less than a description may have
	short.Description, short.Result = "", nil
	about, err := json.Marshal(short)
	if err != nil {
		return "", err
	}
	command := exec.CommandContext(ctx, "/bin/sh", "-c", c.Exec) //nolint:gosec // it is what the user wants run; what strangers say is not in it
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = killTimeout
	command.Env = append(withoutAPIKey(os.Environ()), "AGENTMARKET_TASK="+string(about))
	command.Stdin, command.Stderr = strings.NewReader(task.Description), to.Err
	var out bytes.Buffer
	command.Stdout = &out
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("%s: %w", c.Exec, err)
	}
	switch {
	case out.Len() == 0:
		return "", fmt.Errorf("%s: wrote no result", c.Exec)
	case !utf8.Valid(out.Bytes()): // JSON would have other bytes instead, and the poster would pay for them
		return "", fmt.Errorf("%s: wrote what is no UTF-8 text", c.Exec)
	}
	return out.String(), nil
}

// withoutAPIKey is an environment without the agent's key: the work of strangers has
// no use for it.
func withoutAPIKey(environment []string) []string {
	return slices.DeleteFunc(environment, func(entry string) bool { return strings.HasPrefix(entry, "AGENTMARKET_API_KEY=") })
}

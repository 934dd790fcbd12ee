package dev

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/Khan/genqlient/graphql"

	"agentmarket.space/server/internal/client"
	"agentmarket.space/server/internal/client/api"
)

const (
	// minStartingCredits lets an agent post the most expensive sample task.
	minStartingCredits = 100
	hirePrice          = 10
	// demoCapability is the capability of the developer's agent. Tasks that require it
	// expire after demoOpenMinutes, so that they do not pile up.
	demoCapability  = "demo"
	demoOpenMinutes = 10
)

// agent is a sample agent and its state.
type agent struct {
	id, name, key, secret string

	client     graphql.Client
	console    *console
	capability string
	hireable   []*agent // agents that it hires in turn
	unrated    []string // ids of posted tasks that it has not rated
}

// agentSet holds the agents of the sandbox.
type agentSet struct {
	workers, executors []*agent
	developer          *agent
}

// registerAgents registers four workers, two agents for hire, and the agent of the
// developer.
func (m *sandbox) registerAgents(ctx context.Context) (*agentSet, error) {
	baseURL := m.services.url
	c := &agentSet{}
	for _, spec := range []struct {
		agent
		description, endpoint, prompt, webhook string
	}{
		{agent: agent{name: "Echo"}, description: "Returns the task description as the result.", endpoint: baseURL + "/echo"},
		{agent: agent{name: "Poet"}, description: "Writes a haiku.", prompt: "You answer with a haiku."},
		{agent: agent{name: "Writer", capability: "writing"}},
		{agent: agent{name: "Coder", capability: "coding"}},
		{agent: agent{name: "Researcher", capability: "research"}},
		{agent: agent{name: "Translator", capability: "translation"}},
		{agent: agent{name: "You", capability: demoCapability}, webhook: baseURL + "/hooks/you"},
	} {
		a := &spec.agent
		if err := m.registerAgent(ctx, a, spec.description, spec.endpoint, spec.prompt, spec.webhook); err != nil {
			return nil, err
		}
		switch {
		case spec.webhook != "":
			m.services.setSecret("you", a.secret)
			c.developer = a
		case a.capability != "":
			a.hireable = c.executors
			c.workers = append(c.workers, a)
		default:
			if a.secret != "" { // an agent with a system prompt has none
				m.services.setSecret("echo", a.secret)
			}
			c.executors = append(c.executors, a)
		}
	}
	return c, nil
}

// registerAgent registers an agent and stores its keys.
func (m *sandbox) registerAgent(ctx context.Context, a *agent, description, endpoint, prompt, webhook string) error {
	capabilities := []string{}
	if a.capability != "" {
		capabilities = append(capabilities, a.capability)
	}
	response, err := api.Register(ctx, client.NewClient(m.url, ""), a.name, client.Optional(description), capabilities, hirePrice,
		client.Optional(endpoint), client.Optional(prompt), client.Optional(webhook), nil)
	if err != nil {
		return err
	}
	a.id, a.key, a.console = response.RegisterAgent.Agent.Id, response.RegisterAgent.ApiKey, m.console
	if response.RegisterAgent.WebhookSecret != nil {
		a.secret = *response.RegisterAgent.WebhookSecret
	}
	a.client = client.NewClient(m.url, a.key)
	return nil
}

// stepsPerCycle is the number of actions in the cycle of a worker.
const stepsPerCycle = 5

// run lets the agents act until ctx is done. An agent for hire acts once in each cycle
// of the workers and spends only what it earns.
func (c *agentSet) run(ctx context.Context, pace time.Duration) {
	var group sync.WaitGroup
	for i, a := range c.workers {
		group.Go(func() {
			for n := i; client.Sleep(ctx, pace); n++ {
				a.logError(ctx, a.step(ctx, n, pace))
			}
		})
	}
	for i, a := range c.executors {
		group.Go(func() {
			for n := i; client.Sleep(ctx, stepsPerCycle*pace); n++ {
				a.logError(ctx, a.post(ctx, n))
				a.logError(ctx, a.rate(ctx))
			}
		})
	}
	group.Wait()
}

// step performs the nth action of a worker.
func (a *agent) step(ctx context.Context, n int, pace time.Duration) error {
	switch n % stepsPerCycle {
	case 0:
		return a.post(ctx, n/stepsPerCycle)
	case 2:
		return a.rate(ctx)
	case 3:
		return a.hire(ctx, n/stepsPerCycle)
	default:
		return a.completeTask(ctx, pace)
	}
}

// logError prints the error of an action. An agent without credits keeps working
// until it has some.
func (a *agent) logError(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil && client.CodeOf(err) != "INSUFFICIENT_CREDITS" {
		a.logf("failed: %v", err)
	}
}

// post posts the nth sample task that requires a capability of another agent.
func (a *agent) post(ctx context.Context, n int) error {
	tasks := slices.DeleteFunc(sampleTasks(), func(task sampleTask) bool { return task.capability == a.capability })
	task := tasks[n%len(tasks)]
	var openFor *int
	if task.capability == demoCapability {
		openFor = new(demoOpenMinutes)
	}
	response, err := api.PostTask(ctx, a.client, task.title, task.description, task.budget, []string{task.capability}, openFor, nil)
	if err != nil {
		return err
	}
	a.unrated = append(a.unrated, response.PostTask.Task.Id)
	a.logf("posts %q for %d credits (capability: %s)", task.title, task.budget, task.capability)
	return nil
}

// completeTask accepts and completes the oldest open task that requires the
// capability of the agent.
func (a *agent) completeTask(ctx context.Context, pace time.Duration) error {
	const pageSize = 100 // the agent posts no tasks that require its own capability
	open, err := api.OpenTasks(ctx, a.client, pageSize, nil, a.capability)
	if err != nil {
		return err
	}
	for _, task := range open.Tasks.Nodes {
		if task.Poster.Id == a.id {
			continue
		}
		if _, err := api.AcceptTask(ctx, a.client, task.Id); err != nil {
			return err
		}
		a.logf("accepts %q", client.SanitizeLine(task.Title))
		if !client.Sleep(ctx, pace) {
			return nil
		}
		done, err := api.CompleteTask(ctx, a.client, task.Id, sampleResult(task.Title))
		if err != nil {
			return err
		}
		a.logf("completes %q, balance %d credits", client.SanitizeLine(task.Title), done.CompleteTask.Wallet.Balance)
		return nil
	}
	return nil
}

// rate rates one of the completed tasks that the agent posted.
func (a *agent) rate(ctx context.Context) error {
	for i, id := range a.unrated {
		response, err := api.Task(ctx, a.client, id)
		if err != nil {
			return err
		}
		switch response.Task.Status {
		case api.TaskStatusOpen, api.TaskStatusAssigned:
			continue
		case api.TaskStatusCompleted:
			score := 3 + len(response.Task.Title)%3
			if _, err := api.RateTask(ctx, a.client, id, score, nil); err != nil {
				return err
			}
			a.logf("rates %q %d of 5", client.SanitizeLine(response.Task.Title), score)
		case api.TaskStatusCancelled, api.TaskStatusExpired, api.TaskStatusFailed:
		}
		a.unrated = slices.Delete(a.unrated, i, i+1)
		return nil
	}
	return nil
}

// hire hires the agents for hire in turn.
func (a *agent) hire(ctx context.Context, n int) error {
	other := a.hireable[n%len(a.hireable)]
	response, err := api.Execute(ctx, a.client, other.id, "A haiku about distributed systems", hirePrice)
	if err != nil {
		return err
	}
	result := ""
	if response.Execute.Result != nil {
		result = *response.Execute.Result
	}
	a.logf("hires %s: %q", other.name, client.SanitizeLine(result))
	return nil
}

func (a *agent) logf(format string, args ...any) {
	a.console.printf("%s", client.SanitizeLine(a.name+" "+fmt.Sprintf(format, args...)))
}

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
	// minStartingCredits is what an agent needs to post the dearest job.
	minStartingCredits = 100
	hirePrice          = 10
	// demoCapability is what the reader's agent can do, and demoOpenMinutes how long a task for it
	// stays open, so that what nobody takes does not pile up.
	demoCapability  = "demo"
	demoOpenMinutes = 10
)

// agent is one that trades, with what it remembers.
type agent struct {
	id, name, key, secret string

	client     graphql.Client
	console    *console
	capability string
	hireable   []*agent // whom it may hire
	unrated    []string // tasks that it has not rated
}

// agentSet are the agents of the market.
type agentSet struct {
	workers, executors []*agent
	developer          *agent
}

// registerAgents registers four agents that take tasks, two that are hired, and the reader's.
func (m *sandbox) registerAgents(ctx context.Context) (*agentSet, error) {
	https := m.services.url
	c := &agentSet{}
	for _, one := range []struct {
		agent
		about, endpoint, prompt, webhook string
	}{
		{agent: agent{name: "Echo"}, about: "Answers what it is told.", endpoint: https + "/echo"},
		{agent: agent{name: "Poet"}, about: "Writes a haiku.", prompt: "You answer with a haiku."},
		{agent: agent{name: "Writer", capability: "writing"}},
		{agent: agent{name: "Coder", capability: "coding"}},
		{agent: agent{name: "Researcher", capability: "research"}},
		{agent: agent{name: "Translator", capability: "translation"}},
		{agent: agent{name: "You", capability: demoCapability}, webhook: https + "/hooks/you"},
	} {
		a := &one.agent
		if err := m.registerAgent(ctx, a, one.about, one.endpoint, one.prompt, one.webhook); err != nil {
			return nil, err
		}
		switch {
		case one.webhook != "":
			m.services.setSecret("you", a.secret)
			c.developer = a
		case a.capability != "":
			a.hireable = c.executors
			c.workers = append(c.workers, a)
		default:
			if a.secret != "" { // the one that the model does has none
				m.services.setSecret("echo", a.secret)
			}
			c.executors = append(c.executors, a)
		}
	}
	return c, nil
}

// registerAgent registers an agent, which knows its key from then on.
func (m *sandbox) registerAgent(ctx context.Context, a *agent, about, endpoint, prompt, webhook string) error {
	given := func(text string) *string {
		if text == "" {
			return nil
		}
		return &text
	}
	capabilities := []string{}
	if a.capability != "" {
		capabilities = append(capabilities, a.capability)
	}
	answer, err := api.Register(ctx, client.NewClient(m.url, ""), a.name, given(about), capabilities, hirePrice,
		given(endpoint), given(prompt), given(webhook), nil)
	if err != nil {
		return err
	}
	a.id, a.key, a.console = answer.RegisterAgent.Agent.Id, answer.RegisterAgent.ApiKey, m.console
	if answer.RegisterAgent.WebhookSecret != nil {
		a.secret = *answer.RegisterAgent.WebhookSecret
	}
	a.client = client.NewClient(m.url, a.key)
	return nil
}

// stepsPerCycle is how many things an agent does until it begins again.
const stepsPerCycle = 5

// run has the agents do one thing after another until ctx ends. Those that are hired
// only spend what they earn, a thing in each cycle of the others: what all have lasts for
// an afternoon of fees.
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

// step does the nth thing.
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

// logError says what an agent could not do. Who has spent all works until there is more.
func (a *agent) logError(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil && client.CodeOf(err) != "INSUFFICIENT_CREDITS" {
		a.logf("could not: %v", err)
	}
}

// post posts the nth task, which asks for what another agent can do.
func (a *agent) post(ctx context.Context, n int) error {
	jobs := slices.DeleteFunc(sampleTasks(), func(j sampleTask) bool { return j.capability == a.capability })
	j := jobs[n%len(jobs)]
	var openFor *int
	if j.capability == demoCapability {
		openFor = new(demoOpenMinutes)
	}
	answer, err := api.PostTask(ctx, a.client, j.title, j.description, j.budget, []string{j.capability}, openFor, nil)
	if err != nil {
		return err
	}
	a.unrated = append(a.unrated, answer.PostTask.Task.Id)
	a.logf("posts %q for %d credits, asks for %s", j.title, j.budget, j.capability)
	return nil
}

// completeTask takes the task that has been open for longest of those that ask for what the
// agent can do, whoever posted it, and completes it.
func (a *agent) completeTask(ctx context.Context, pace time.Duration) error {
	most := 100
	open, err := api.Tasks(ctx, a.client, &most, nil, []api.TaskStatus{api.TaskStatusOpen}, &a.capability, nil)
	if err != nil {
		return err
	}
	for _, task := range slices.Backward(open.Tasks.Nodes) {
		if task.Poster.Id == a.id {
			continue
		}
		if _, err := api.AcceptTask(ctx, a.client, task.Id); err != nil {
			return err
		}
		a.logf("takes %q", client.SanitizeLine(task.Title))
		if !client.Sleep(ctx, pace) {
			return nil
		}
		done, err := api.CompleteTask(ctx, a.client, task.Id, sampleResult(task.Title))
		if err != nil {
			return err
		}
		a.logf("completes %q, has %d credits", client.SanitizeLine(task.Title), done.CompleteTask.Wallet.Balance)
		return nil
	}
	return nil
}

// rate rates what the agent posted and others have completed.
func (a *agent) rate(ctx context.Context) error {
	for i, id := range a.unrated {
		answer, err := api.Task(ctx, a.client, id)
		if err != nil {
			return err
		}
		switch answer.Task.Status {
		case api.TaskStatusOpen, api.TaskStatusAssigned:
			continue
		case api.TaskStatusCompleted:
			score := 3 + len(answer.Task.Title)%3
			if _, err := api.RateTask(ctx, a.client, id, score, nil); err != nil {
				return err
			}
			a.logf("rates %q with %d", client.SanitizeLine(answer.Task.Title), score)
		case api.TaskStatusCancelled, api.TaskStatusExpired, api.TaskStatusFailed:
		}
		a.unrated = slices.Delete(a.unrated, i, i+1)
		return nil
	}
	return nil
}

// hire hires one of those that are hired, in turn.
func (a *agent) hire(ctx context.Context, n int) error {
	other := a.hireable[n%len(a.hireable)]
	answer, err := api.Execute(ctx, a.client, other.id, "A haiku about distributed systems", hirePrice)
	if err != nil {
		return err
	}
	result := ""
	if answer.Execute.Result != nil {
		result = *answer.Execute.Result
	}
	a.logf("hires %s: %q", other.name, client.SanitizeLine(result))
	return nil
}

func (a *agent) logf(format string, args ...any) {
	a.console.printf("%s", client.SanitizeLine(a.name+" "+fmt.Sprintf(format, args...)))
}

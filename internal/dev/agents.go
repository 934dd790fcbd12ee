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
	// leastCredit is what an agent needs to post the dearest job.
	leastCredit = 100
	hirePrice   = 10
	// forYou is what the reader's agent can do, and yourMinutes how long a task for it
	// stays open, so that what nobody takes does not pile up.
	forYou      = "demo"
	yourMinutes = 10
)

// agent is one that trades, with what it remembers.
type agent struct {
	id, name, key, secret string

	client  graphql.Client
	console *console
	can     string
	hires   []*agent // whom it may hire
	posted  []string // tasks that it has not rated
}

// cast are the agents of the market.
type cast struct {
	workers, hired []*agent
	you            *agent
}

// introduce registers four agents that take tasks, two that are hired, and the reader's.
func (m *market) introduce(ctx context.Context) (*cast, error) {
	https := m.outside.url
	c := &cast{}
	for _, one := range []struct {
		agent
		about, endpoint, prompt, webhook string
	}{
		{agent: agent{name: "Echo"}, about: "Answers what it is told.", endpoint: https + "/echo"},
		{agent: agent{name: "Poet"}, about: "Writes a haiku.", prompt: "You answer with a haiku."},
		{agent: agent{name: "Writer", can: "writing"}},
		{agent: agent{name: "Coder", can: "coding"}},
		{agent: agent{name: "Researcher", can: "research"}},
		{agent: agent{name: "Translator", can: "translation"}},
		{agent: agent{name: "You", can: forYou}, webhook: https + "/hooks/you"},
	} {
		a := &one.agent
		if err := m.register(ctx, a, one.about, one.endpoint, one.prompt, one.webhook); err != nil {
			return nil, err
		}
		switch {
		case one.webhook != "":
			m.outside.know("you", a.secret)
			c.you = a
		case a.can != "":
			a.hires = c.hired
			c.workers = append(c.workers, a)
		default:
			if a.secret != "" { // the one that the model does has none
				m.outside.know("echo", a.secret)
			}
			c.hired = append(c.hired, a)
		}
	}
	return c, nil
}

// register registers an agent, which knows its key from then on.
func (m *market) register(ctx context.Context, a *agent, about, endpoint, prompt, webhook string) error {
	given := func(text string) *string {
		if text == "" {
			return nil
		}
		return &text
	}
	capabilities := []string{}
	if a.can != "" {
		capabilities = append(capabilities, a.can)
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

// cycle is how many things an agent does until it begins again.
const cycle = 5

// trade has the agents do one thing after another until ctx ends. Those that are hired
// only spend what they earn, a thing in each cycle of the others: what all have lasts for
// an afternoon of fees.
func (c *cast) trade(ctx context.Context, pace time.Duration) {
	var group sync.WaitGroup
	for i, a := range c.workers {
		group.Go(func() {
			for n := i; client.Waited(ctx, pace); n++ {
				a.tell(ctx, a.step(ctx, n, pace))
			}
		})
	}
	for i, a := range c.hired {
		group.Go(func() {
			for n := i; client.Waited(ctx, cycle*pace); n++ {
				a.tell(ctx, a.post(ctx, n))
				a.tell(ctx, a.rate(ctx))
			}
		})
	}
	group.Wait()
}

// step does the nth thing.
func (a *agent) step(ctx context.Context, n int, pace time.Duration) error {
	switch n % cycle {
	case 0:
		return a.post(ctx, n/cycle)
	case 2:
		return a.rate(ctx)
	case 3:
		return a.hire(ctx, n/cycle)
	default:
		return a.work(ctx, pace)
	}
}

// tell says what an agent could not do. Who has spent all works until there is more.
func (a *agent) tell(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil && client.CodeOf(err) != "INSUFFICIENT_CREDITS" {
		a.say("could not: %v", err)
	}
}

// post posts the nth task, which asks for what another agent can do.
func (a *agent) post(ctx context.Context, n int) error {
	jobs := slices.DeleteFunc(jobs(), func(j job) bool { return j.needs == a.can })
	j := jobs[n%len(jobs)]
	var openFor *int
	if j.needs == forYou {
		openFor = new(yourMinutes)
	}
	answer, err := api.PostTask(ctx, a.client, j.title, j.description, j.budget, []string{j.needs}, openFor, nil)
	if err != nil {
		return err
	}
	a.posted = append(a.posted, answer.PostTask.Task.Id)
	a.say("posts %q for %d credits, asks for %s", j.title, j.budget, j.needs)
	return nil
}

// work takes the task that has been open for longest of those that ask for what the
// agent can do, whoever posted it, and completes it.
func (a *agent) work(ctx context.Context, pace time.Duration) error {
	most := 100
	open, err := api.Tasks(ctx, a.client, &most, nil, []api.TaskStatus{api.TaskStatusOpen}, &a.can, nil)
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
		a.say("takes %q", client.OneLine(task.Title))
		if !client.Waited(ctx, pace) {
			return nil
		}
		done, err := api.CompleteTask(ctx, a.client, task.Id, resultOf(task.Title))
		if err != nil {
			return err
		}
		a.say("completes %q, has %d credits", client.OneLine(task.Title), done.CompleteTask.Wallet.Balance)
		return nil
	}
	return nil
}

// rate rates what the agent posted and others have completed.
func (a *agent) rate(ctx context.Context) error {
	for i, id := range a.posted {
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
			a.say("rates %q with %d", client.OneLine(answer.Task.Title), score)
		case api.TaskStatusCancelled, api.TaskStatusExpired, api.TaskStatusFailed:
		}
		a.posted = slices.Delete(a.posted, i, i+1)
		return nil
	}
	return nil
}

// hire hires one of those that are hired, in turn.
func (a *agent) hire(ctx context.Context, n int) error {
	other := a.hires[n%len(a.hires)]
	answer, err := api.Execute(ctx, a.client, other.id, "A haiku about distributed systems", hirePrice)
	if err != nil {
		return err
	}
	result := ""
	if answer.Execute.Result != nil {
		result = *answer.Execute.Result
	}
	a.say("hires %s: %q", other.name, client.OneLine(result))
	return nil
}

func (a *agent) say(format string, args ...any) {
	a.console.print("%s", client.OneLine(a.name+" "+fmt.Sprintf(format, args...)))
}

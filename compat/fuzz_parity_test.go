package compat

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/internal/test/trust/trusttest"
	"agentmarket.space/server/models"
)

// maxSteps is how many steps of an input are taken; further ones are passed over.
const maxSteps = 24

// FuzzParity takes the same steps in two markets, in one through REST and in the other
// through GraphQL: each is answered alike and they lead to the same state, and the
// books are right. A step is three bytes: a verb, who does it and to what, a number.
func FuzzParity(f *testing.F) {
	for _, steps := range []string{
		"\x00\x00\x19\x01\x01\x00\x02\x01\x00\x06\x00\x04",                         // post, accept, complete, rate
		"\x00\x00\x19\x01\x01\x00\x04\x01\x00\x03\x00\x00",                         // post, accept, release, cancel
		"\x00\x00\x0a\x01\x01\x00\x08\x00\xff\x05\x01\x00\x08\x00\xff\x09\x00\x00", // time ends the lease, and the task
		"\x07\x01\x1e\x07\x01\x1f\x07\x01\x20\x07\x00\x1e\x07\x05\x05",             // hires that end well and badly, and refused ones
		"\x00\x00\x01\x00\x00\x40\x00\x00\x3f\x00\x00\x3f\x01\x00\x00\x02\x00\x00\x06\x00\x00\x04\x00\x00\x05\x00\x00",
	} {
		f.Add([]byte(steps))
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range trusttest.Scale(5, 100, 2000) {
		program := make([]byte, 3*maxSteps)
		for i := range program {
			program[i] = byte(random.Uint32())
		}
		f.Add(program)
	}
	var steps atomic.Int64
	both := [2]*dualAPI{}
	for i := range both {
		_, both[i], _ = newDualAPI(f, func() bool { return i == 0 }, &steps, 0)
	}
	inputs, done := 0, 0
	f.Fuzz(func(t *testing.T, program []byte) {
		p := &marketPair{T: t, apis: both}
		for i, d := range both {
			p.agents[i] = d.registerHireableAgents(t, 3)
		}
		for ; len(program) >= 3 && len(p.codes) < maxSteps; program = program[3:] {
			p.step(program[0]%10, int(program[1]), int(program[2]))
		}
		p.compare()
		done += p.succeeded
		if inputs++; inputs%verifyInterval == 0 {
			both[0].verifyLedger(t)
			both[1].verifyLedger(t)
		}
	})
	both[0].verifyLedger(f)
	both[1].verifyLedger(f)
	trusttest.Report(f, "doors", "%d walks, %d steps done and %d refused, alike by both, to the same state; the books right", inputs, done, int(steps.Load())/2-done)
}

// marketPair is two markets in which the same is done.
type marketPair struct {
	*testing.T
	apis      [2]*dualAPI
	agents    [2][]auth.Actor
	tasks     []taskPair
	codes     []models.Code // what each step was answered
	succeeded int           // verbs that were not refused
}

// taskPair is a task in both markets.
type taskPair struct {
	ids    [2]string
	poster int
}

// step has an agent do something in both markets.
func (p *marketPair) step(verb byte, who, value int) {
	p.Helper()
	var answers [2]models.Code
	var ids [2]string
	for i := range p.apis {
		out, err := p.perform(i, verb, who, value)
		if ids[i] = out.Task.ID; err != nil {
			answers[i] = models.CodeOf(err)
		}
		if answers[i] == models.Internal {
			p.Fatalf("verb %d of %d with %d: %v", verb, who, value, err)
		}
	}
	if answers[0] != answers[1] {
		p.Fatalf("verb %d of %d with %d after %q is answered %q by REST and %q by GraphQL", verb, who, value, p.codes, answers[0], answers[1])
	}
	p.codes = append(p.codes, answers[0])
	if answers[0] != "" || verb > 7 {
		return
	}
	if p.succeeded++; verb == 0 || verb == 7 {
		p.tasks = append(p.tasks, taskPair{ids, who % 3})
	}
}

// perform takes a step in one market.
func (p *marketPair) perform(i int, verb byte, who, value int) (out market.TaskResult, err error) {
	d, ctx, actor, id := p.apis[i], p.Context(), p.agents[i][who%3], "01900000-0000-7000-8000-000000000000"
	if len(p.tasks) > 0 {
		id = p.tasks[who/3%len(p.tasks)].ids[i]
	}
	budget := models.Credits(value % 80) // of 100 that an agent has
	switch verb {
	case 0:
		minutes := 10 * value
		return d.Post(ctx, actor, market.PostTaskInput{Title: "T", Description: "D", Budget: budget, OpenForMinutes: &minutes, LeaseMinutes: &minutes})
	case 1:
		return d.Accept(ctx, actor, id)
	case 2:
		return d.Complete(ctx, actor, id, "Done.")
	case 3:
		return d.Cancel(ctx, actor, id)
	case 4:
		return d.Release(ctx, actor, id)
	case 5:
		_, err = d.Extend(ctx, actor, id, nil)
	case 6:
		_, err = d.Rate(ctx, actor, market.RateTaskInput{TaskID: id, Score: value % 7})
	case 7:
		d.FakeRunner.ResultFunc = func(context.Context, *models.Agent, *models.Task) (string, error) {
			code := []models.Code{"", models.ExecutionFailed, models.ExecutionTimeout}[value%3]
			return "Done.", errorFor(code, "")
		}
		return d.Execute(ctx, actor, market.ExecuteInput{AgentID: p.agents[i][who/3%3].AgentID, TaskDescription: "D", Budget: budget})
	case 8:
		d.Clock.Advance(time.Duration(10*value) * time.Minute)
	default:
		err = d.Sweep(ctx)
	}
	return out, err
}

// compare wants all balances and tasks to be the same in both markets.
func (p *marketPair) compare() {
	p.Helper()
	for who := range 3 {
		var wallets [2]models.Wallet
		for i, d := range p.apis {
			wallet, err := d.Wallet(p.Context(), p.agents[i][who].AgentID)
			testutil.Must(p.T, err)
			wallets[i] = *wallet
			wallets[i].AgentID = ""
		}
		if wallets[0] != wallets[1] {
			p.Errorf("agent %d has %+v by REST and %+v by GraphQL", who, wallets[0], wallets[1])
		}
	}
	for n, task := range p.tasks {
		var states [2]models.Status
		for i, d := range p.apis {
			got, err := d.Task(p.Context(), p.agents[i][task.poster].AgentID, task.ids[i])
			testutil.Must(p.T, err)
			states[i] = got.Status
		}
		if states[0] != states[1] {
			p.Errorf("task %d is %s by REST and %s by GraphQL", n, states[0], states[1])
		}
	}
}

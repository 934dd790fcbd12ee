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

// maxSteps is the maximum number of steps per input. Further steps are ignored.
const maxSteps = 24

// FuzzParity takes the same steps in two markets, over REST in one and over GraphQL in
// the other. Both return the same codes and reach the same state, and the ledgers are
// consistent. A step is three bytes: an operation, an agent and task, and a number.
func FuzzParity(f *testing.F) {
	for _, steps := range []string{
		"\x00\x00\x19\x01\x01\x00\x02\x01\x00\x06\x00\x04",                         // post, accept, complete, rate
		"\x00\x00\x19\x01\x01\x00\x04\x01\x00\x03\x00\x00",                         // post, accept, release, cancel
		"\x00\x00\x0a\x01\x01\x00\x08\x00\xff\x05\x01\x00\x08\x00\xff\x09\x00\x00", // the lease expires, then the task
		"\x07\x01\x1e\x07\x01\x1f\x07\x01\x20\x07\x00\x1e\x07\x05\x05",             // hires that succeed, fail, or are rejected
		"\x00\x00\x01\x00\x00\x40\x00\x00\x3f\x00\x00\x3f\x01\x00\x00\x02\x00\x00\x06\x00\x00\x04\x00\x00\x05\x00\x00",
	} {
		f.Add([]byte(steps))
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range trusttest.Scale(5, 100, 2000) {
		program := make([]byte, 3*maxSteps)
		for i := range program {
			program[i] = byte(rng.Uint32())
		}
		f.Add(program)
	}
	var steps atomic.Int64
	apis := [2]*dualAPI{}
	for i := range apis {
		_, apis[i], _ = newDualAPI(f, func() bool { return i == 0 }, &steps, 0)
	}
	inputs, succeeded := 0, 0
	f.Fuzz(func(t *testing.T, program []byte) {
		p := &marketPair{T: t, apis: apis}
		for i, api := range apis {
			p.agents[i] = api.registerHireableAgents(t, 3)
		}
		for ; len(program) >= 3 && len(p.codes) < maxSteps; program = program[3:] {
			p.step(program[0]%10, int(program[1]), int(program[2]))
		}
		p.compare()
		succeeded += p.succeeded
		if inputs++; inputs%verifyInterval == 0 {
			apis[0].verifyLedger(t)
			apis[1].verifyLedger(t)
		}
	})
	apis[0].verifyLedger(f)
	apis[1].verifyLedger(f)
	trusttest.Report(f, "doors", "%d runs, %d steps succeeded and %d failed: same codes and state in both APIs, ledger consistent", inputs, succeeded, int(steps.Load())/2-succeeded)
}

// marketPair is two markets in which the same steps are taken.
type marketPair struct {
	*testing.T
	apis      [2]*dualAPI
	agents    [2][]auth.Actor
	tasks     []taskPair
	codes     []models.Code // the result of each step; "" for success
	succeeded int           // number of successful operations
}

// taskPair is a task in both markets.
type taskPair struct {
	ids    [2]string
	poster int
}

// step takes a step in both markets.
func (p *marketPair) step(verb byte, agent, value int) {
	p.Helper()
	var codes [2]models.Code
	var ids [2]string
	for i := range p.apis {
		out, err := p.perform(i, verb, agent, value)
		if ids[i] = out.Task.ID; err != nil {
			codes[i] = models.CodeOf(err)
		}
		if codes[i] == models.Internal {
			p.Fatalf("operation %d of agent %d with %d: %v", verb, agent, value, err)
		}
	}
	if codes[0] != codes[1] {
		p.Fatalf("operation %d of agent %d with %d after %q: REST returns %q, GraphQL %q", verb, agent, value, p.codes, codes[0], codes[1])
	}
	p.codes = append(p.codes, codes[0])
	if codes[0] != "" || verb > 7 {
		return
	}
	if p.succeeded++; verb == 0 || verb == 7 {
		p.tasks = append(p.tasks, taskPair{ids, agent % 3})
	}
}

// perform takes a step in one market.
func (p *marketPair) perform(i int, verb byte, agent, value int) (out market.TaskResult, err error) {
	api, ctx, actor, id := p.apis[i], p.Context(), p.agents[i][agent%3], "01900000-0000-7000-8000-000000000000"
	if len(p.tasks) > 0 {
		id = p.tasks[agent/3%len(p.tasks)].ids[i]
	}
	budget := models.Credits(value % 80) // an agent starts with 100 credits
	switch verb {
	case 0:
		minutes := 10 * value
		return api.Post(ctx, actor, market.PostTaskInput{Title: "T", Description: "D", Budget: budget, OpenForMinutes: &minutes, LeaseMinutes: &minutes})
	case 1:
		return api.Accept(ctx, actor, id)
	case 2:
		return api.Complete(ctx, actor, id, "Done.")
	case 3:
		return api.Cancel(ctx, actor, id)
	case 4:
		return api.Release(ctx, actor, id)
	case 5:
		_, err = api.Extend(ctx, actor, id, nil)
	case 6:
		_, err = api.Rate(ctx, actor, market.RateTaskInput{TaskID: id, Score: value % 7})
	case 7:
		api.FakeRunner.ResultFunc = func(context.Context, *models.Agent, *models.Task) (string, error) {
			code := []models.Code{"", models.ExecutionFailed, models.ExecutionTimeout}[value%3]
			return "Done.", errorFor(code, "")
		}
		return api.Execute(ctx, actor, market.ExecuteInput{AgentID: p.agents[i][agent/3%3].AgentID, TaskDescription: "D", Budget: budget})
	case 8:
		api.Clock.Advance(time.Duration(10*value) * time.Minute)
	default:
		err = api.Sweep(ctx)
	}
	return out, err
}

// compare compares all balances and tasks.
func (p *marketPair) compare() {
	p.Helper()
	for agent := range 3 {
		var wallets [2]models.Wallet
		for i, api := range p.apis {
			wallet, err := api.Wallet(p.Context(), p.agents[i][agent].AgentID)
			testutil.Must(p.T, err)
			wallets[i] = *wallet
			wallets[i].AgentID = ""
		}
		if wallets[0] != wallets[1] {
			p.Errorf("agent %d has %+v over REST and %+v over GraphQL", agent, wallets[0], wallets[1])
		}
	}
	for n, task := range p.tasks {
		var states [2]models.Status
		for i, api := range p.apis {
			got, err := api.Task(p.Context(), p.agents[i][task.poster].AgentID, task.ids[i])
			testutil.Must(p.T, err)
			states[i] = got.Status
		}
		if states[0] != states[1] {
			p.Errorf("task %d is %s over REST and %s over GraphQL", n, states[0], states[1])
		}
	}
}

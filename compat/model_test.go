package compat

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"agentmarket.space/server/graph"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/markettest"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/internal/test/trust/trusttest"
	"agentmarket.space/server/models"
)

// TestModel walks the market beside its model through the two doors, each step
// through either. Both show the same after it. See markettest.CheckModel. Each core
// walks as often as -rapid.checks says.
func TestModel(t *testing.T) {
	t.Parallel()
	trusttest.SkipUnlessTrust(t)
	var walks, steps atomic.Int64
	t.Cleanup(func() {
		trusttest.Report(t, "model", "%d walks of %d steps in all, checked after every step", walks.Load(), steps.Load())
	})
	for i := range runtime.NumCPU() {
		t.Run(fmt.Sprint("walker ", i), func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(r *rapid.T) {
				walks.Add(1)
				markettest.CheckModel(t, r, func(tb testing.TB, agents int) (*markettest.Bundle, markettest.MarketAPI, []auth.Actor) {
					tb.Helper()
					return newDualAPI(tb, func() bool { return rapid.Bool().Draw(r, "by REST") }, &steps, agents)
				})
			})
		})
	}
}

// dualAPI are REST and GraphQL as the verbs of one market.
type dualAPI struct {
	*bundle
	graphql http.Handler
	useREST func() bool       // whether the next verb is taken by REST
	keys    map[string]string // by agent
	steps   *atomic.Int64
}

// newDualAPI makes a market with agents that can be hired.
func newDualAPI(tb testing.TB, rest func() bool, steps *atomic.Int64, agents int) (*markettest.Bundle, *dualAPI, []auth.Actor) {
	tb.Helper()
	b := newBundle(tb)
	resolver := &graph.Resolver{Market: b.Market, Events: b.Log, Webhooks: b.hooks}
	server, err := graph.NewServer(resolver, graph.ServerOptions{Keys: b.Keys, Logger: b.Logger})
	testutil.Must(tb, err)
	d := &dualAPI{bundle: b, graphql: b.authenticate(server), useREST: rest, keys: map[string]string{}, steps: steps}
	return b.Bundle, d, d.registerHireableAgents(tb, agents)
}

// registerHireableAgents registers agents with an endpoint.
func (d *dualAPI) registerHireableAgents(tb testing.TB, agents int) []auth.Actor {
	tb.Helper()
	actors := make([]auth.Actor, agents)
	for i := range actors {
		agent := d.registerAgent(tb, "Agent", `,"endpoint_url":"https://agent.example.com/execute"`)
		d.keys[agent.id], actors[i].AgentID = agent.key, agent.id
	}
	return actors
}

// mutate takes a verb through one door or the other. Path is beneath /api, verb
// and input are the mutation's.
func (d *dualAPI) mutate(agentID, path, body, verb, input string) (market.TaskResult, error) {
	d.steps.Add(1)
	var task models.Task
	if d.useREST() {
		data, err := d.callREST(http.MethodPost, path, agentID, body)
		task.ID = data.ID + data.TaskID
		return market.TaskResult{Task: task}, err
	}
	var data struct {
		Verb struct{ Task struct{ ID string } }
	}
	err := d.callGraphQL(agentID, "mutation { verb: "+verb+"(input: {"+input+"}) { task { id } } }", &data)
	task.ID = data.Verb.Task.ID
	return market.TaskResult{Task: task}, err
}

// restData is what the walk looks at in an answer of REST.
type restData struct {
	ID      string `json:"id"`
	TaskID  string `json:"task_id"`
	Status  string
	Balance models.Credits
}

func (d *dualAPI) callREST(method, path, agentID, body string) (restData, error) {
	got := serveRequest(d.handler, method, "/api"+path, d.keys[agentID], body)
	var answer struct {
		Data  restData
		Code  models.Code
		Error string
	}
	if err := json.Unmarshal(got.Body.Bytes(), &answer); err != nil {
		return restData{}, fmt.Errorf("%d %s: %w", got.Code, got.Body, err)
	}
	return answer.Data, errorFor(answer.Code, answer.Error)
}

func (d *dualAPI) callGraphQL(agentID, document string, data any) error {
	body, err := json.Marshal(map[string]string{"query": document})
	if err != nil {
		return err
	}
	got := serveRequest(d.graphql, http.MethodPost, "/graphql", d.keys[agentID], string(body))
	var answer struct {
		Data   json.RawMessage
		Errors []struct {
			Message    string
			Extensions struct{ Code models.Code }
		}
	}
	if err := json.Unmarshal(got.Body.Bytes(), &answer); err != nil {
		return fmt.Errorf("%d %s: %w", got.Code, got.Body, err)
	}
	if len(answer.Errors) > 0 {
		return errorFor(answer.Errors[0].Extensions.Code, answer.Errors[0].Message)
	}
	return json.Unmarshal(answer.Data, data)
}

// errorFor is what an answer says went wrong; nil when nothing did.
func errorFor(code models.Code, message string) error {
	if code == "" && message == "" {
		return nil
	}
	return models.Errorf(code, "%s", message)
}

// Post posts a task.
func (d *dualAPI) Post(_ context.Context, actor auth.Actor, in market.PostTaskInput) (market.TaskResult, error) {
	return d.mutate(actor.AgentID, "/tasks",
		fmt.Sprintf(`{"title":%q,"description":%q,"budget":%d,"open_for_minutes":%d,"lease_minutes":%d}`,
			in.Title, in.Description, in.Budget, *in.OpenForMinutes, *in.LeaseMinutes),
		"postTask", fmt.Sprintf(`title: %q, description: %q, budget: %d, openForMinutes: %d, leaseMinutes: %d`,
			in.Title, in.Description, in.Budget, *in.OpenForMinutes, *in.LeaseMinutes))
}

// Accept takes a task.
func (d *dualAPI) Accept(_ context.Context, actor auth.Actor, taskID string) (market.TaskResult, error) {
	return d.mutate(actor.AgentID, "/tasks/"+taskID+"/accept", "", "acceptTask", fmt.Sprintf("taskId: %q", taskID))
}

// Complete hands in a result.
func (d *dualAPI) Complete(_ context.Context, actor auth.Actor, taskID, result string) (market.TaskResult, error) {
	return d.mutate(actor.AgentID, "/tasks/"+taskID+"/complete", fmt.Sprintf(`{"result":%q}`, result),
		"completeTask", fmt.Sprintf("taskId: %q, result: %q", taskID, result))
}

// Cancel takes a task back.
func (d *dualAPI) Cancel(_ context.Context, actor auth.Actor, taskID string) (market.TaskResult, error) {
	return d.mutate(actor.AgentID, "/tasks/"+taskID+"/cancel", "", "cancelTask", fmt.Sprintf("taskId: %q", taskID))
}

// Release gives a task back.
func (d *dualAPI) Release(_ context.Context, actor auth.Actor, taskID string) (market.TaskResult, error) {
	return d.mutate(actor.AgentID, "/tasks/"+taskID+"/release", "", "releaseTask", fmt.Sprintf("taskId: %q", taskID))
}

// Extend asks for more time.
func (d *dualAPI) Extend(_ context.Context, actor auth.Actor, taskID string, _ *int) (models.Task, error) {
	out, err := d.mutate(actor.AgentID, "/tasks/"+taskID+"/extend", "", "extendTask", fmt.Sprintf("taskId: %q", taskID))
	return out.Task, err
}

// Rate rates a task.
func (d *dualAPI) Rate(_ context.Context, actor auth.Actor, in market.RateTaskInput) (models.Task, error) {
	out, err := d.mutate(actor.AgentID, "/tasks/"+in.TaskID+"/rate", fmt.Sprintf(`{"score":%d}`, in.Score),
		"rateTask", fmt.Sprintf("taskId: %q, score: %d", in.TaskID, in.Score))
	return out.Task, err
}

// Execute hires an agent.
func (d *dualAPI) Execute(_ context.Context, actor auth.Actor, in market.ExecuteInput) (market.TaskResult, error) {
	return d.mutate(actor.AgentID, "/execute",
		fmt.Sprintf(`{"agent_id":%q,"task_description":%q,"budget":%d}`, in.AgentID, in.TaskDescription, in.Budget),
		"execute", fmt.Sprintf("agentId: %q, taskDescription: %q, budget: %d", in.AgentID, in.TaskDescription, in.Budget))
}

// Task is a task as both doors show it.
func (d *dualAPI) Task(_ context.Context, viewerID, id string) (*models.Task, error) {
	var data struct {
		Task struct{ Status, Origin string }
	}
	if err := d.callGraphQL(viewerID, fmt.Sprintf("{ task(id: %q) { status origin } }", id), &data); err != nil {
		return nil, err
	}
	rest, err := d.callREST(http.MethodGet, "/tasks/"+id, viewerID, "")
	status := strings.ToLower(data.Task.Status)
	if err != nil || rest.Status != status {
		return nil, fmt.Errorf("REST says %q of a task (%w), GraphQL %q", rest.Status, err, status)
	}
	return &models.Task{ID: id, Status: models.Status(status), Origin: models.Origin(strings.ToLower(data.Task.Origin))}, nil
}

// Wallet is a wallet as both doors show it.
func (d *dualAPI) Wallet(_ context.Context, agentID string) (*models.Wallet, error) {
	var data struct {
		Viewer struct {
			Wallet struct{ Balance, HeldBalance models.Credits }
		}
	}
	if err := d.callGraphQL(agentID, "{ viewer { wallet { balance heldBalance } } }", &data); err != nil {
		return nil, err
	}
	wallet := data.Viewer.Wallet
	rest, err := d.callREST(http.MethodGet, "/wallet", agentID, "")
	if err != nil || rest.Balance != wallet.Balance {
		return nil, fmt.Errorf("REST says %d of a balance (%w), GraphQL %d", rest.Balance, err, wallet.Balance)
	}
	return &models.Wallet{AgentID: agentID, Available: wallet.Balance, Held: wallet.HeldBalance}, nil
}

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

// TestModel changes the market at random over REST and GraphQL and compares it with a
// model after every step; see markettest.CheckModel. Each CPU runs -rapid.checks runs.
func TestModel(t *testing.T) {
	t.Parallel()
	trusttest.SkipUnlessTrust(t)
	var walks, steps atomic.Int64
	t.Cleanup(func() {
		trusttest.Report(t, "model", "%d runs with %d steps in total, checked after every step", walks.Load(), steps.Load())
	})
	for i := range runtime.NumCPU() {
		t.Run(fmt.Sprint("walker ", i), func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(r *rapid.T) {
				walks.Add(1)
				markettest.CheckModel(t, r, func(tb testing.TB, agents int) (*markettest.Bundle, markettest.MarketAPI, []auth.Actor) {
					tb.Helper()
					return newDualAPI(tb, func() bool { return rapid.Bool().Draw(r, "use REST") }, &steps, agents)
				})
			})
		})
	}
}

// dualAPI implements markettest.MarketAPI over REST and GraphQL.
type dualAPI struct {
	*bundle
	graphql http.Handler
	useREST func() bool       // whether the next operation uses REST
	keys    map[string]string // by agent id
	steps   *atomic.Int64
}

// newDualAPI creates a market with agents that can be hired.
func newDualAPI(tb testing.TB, useREST func() bool, steps *atomic.Int64, agents int) (*markettest.Bundle, *dualAPI, []auth.Actor) {
	tb.Helper()
	b := newBundle(tb)
	resolver := &graph.Resolver{Market: b.Market, Events: b.Log, Webhooks: b.hooks}
	server, err := graph.NewServer(resolver, graph.ServerOptions{Keys: b.Keys, Logger: b.Logger})
	testutil.Must(tb, err)
	api := &dualAPI{bundle: b, graphql: b.authenticate(server), useREST: useREST, keys: map[string]string{}, steps: steps}
	return b.Bundle, api, api.registerHireableAgents(tb, agents)
}

// registerHireableAgents registers agents with an endpoint.
func (api *dualAPI) registerHireableAgents(tb testing.TB, agents int) []auth.Actor {
	tb.Helper()
	actors := make([]auth.Actor, agents)
	for i := range actors {
		agent := api.registerAgent(tb, "Agent", `,"endpoint_url":"https://agent.example.com/execute"`)
		api.keys[agent.id], actors[i].AgentID = agent.key, agent.id
	}
	return actors
}

// mutate performs an operation over REST or GraphQL. path is below /api; verb and
// input are those of the mutation.
func (api *dualAPI) mutate(agentID, path, body, verb, input string) (market.TaskResult, error) {
	api.steps.Add(1)
	var task models.Task
	if api.useREST() {
		data, err := api.callREST(http.MethodPost, path, agentID, body)
		task.ID = data.ID + data.TaskID
		return market.TaskResult{Task: task}, err
	}
	var data struct {
		Verb struct{ Task struct{ ID string } }
	}
	err := api.callGraphQL(agentID, "mutation { verb: "+verb+"(input: {"+input+"}) { task { id } } }", &data)
	task.ID = data.Verb.Task.ID
	return market.TaskResult{Task: task}, err
}

// restData is the data of a REST response.
type restData struct {
	ID      string `json:"id"`
	TaskID  string `json:"task_id"`
	Status  string
	Balance models.Credits
}

func (api *dualAPI) callREST(method, path, agentID, body string) (restData, error) {
	got := serveRequest(api.handler, method, "/api"+path, api.keys[agentID], body)
	var resp struct {
		Data  restData
		Code  models.Code
		Error string
	}
	if err := json.Unmarshal(got.Body.Bytes(), &resp); err != nil {
		return restData{}, fmt.Errorf("%d %s: %w", got.Code, got.Body, err)
	}
	return resp.Data, errorFor(resp.Code, resp.Error)
}

func (api *dualAPI) callGraphQL(agentID, document string, data any) error {
	body, err := json.Marshal(map[string]string{"query": document})
	if err != nil {
		return err
	}
	got := serveRequest(api.graphql, http.MethodPost, "/graphql", api.keys[agentID], string(body))
	var resp struct {
		Data   json.RawMessage
		Errors []struct {
			Message    string
			Extensions struct{ Code models.Code }
		}
	}
	if err := json.Unmarshal(got.Body.Bytes(), &resp); err != nil {
		return fmt.Errorf("%d %s: %w", got.Code, got.Body, err)
	}
	if len(resp.Errors) > 0 {
		return errorFor(resp.Errors[0].Extensions.Code, resp.Errors[0].Message)
	}
	return json.Unmarshal(resp.Data, data)
}

// errorFor returns the error of a response, or nil.
func errorFor(code models.Code, message string) error {
	if code == "" && message == "" {
		return nil
	}
	return models.Errorf(code, "%s", message)
}

// Post posts a task.
func (api *dualAPI) Post(_ context.Context, actor auth.Actor, in market.PostTaskInput) (market.TaskResult, error) {
	return api.mutate(actor.AgentID, "/tasks",
		fmt.Sprintf(`{"title":%q,"description":%q,"budget":%d,"open_for_minutes":%d,"lease_minutes":%d}`,
			in.Title, in.Description, in.Budget, *in.OpenForMinutes, *in.LeaseMinutes),
		"postTask", fmt.Sprintf(`title: %q, description: %q, budget: %d, openForMinutes: %d, leaseMinutes: %d`,
			in.Title, in.Description, in.Budget, *in.OpenForMinutes, *in.LeaseMinutes))
}

// Accept accepts a task.
func (api *dualAPI) Accept(_ context.Context, actor auth.Actor, taskID string) (market.TaskResult, error) {
	return api.mutate(actor.AgentID, "/tasks/"+taskID+"/accept", "", "acceptTask", fmt.Sprintf("taskId: %q", taskID))
}

// Complete submits a result.
func (api *dualAPI) Complete(_ context.Context, actor auth.Actor, taskID, result string) (market.TaskResult, error) {
	return api.mutate(actor.AgentID, "/tasks/"+taskID+"/complete", fmt.Sprintf(`{"result":%q}`, result),
		"completeTask", fmt.Sprintf("taskId: %q, result: %q", taskID, result))
}

// Cancel cancels a task.
func (api *dualAPI) Cancel(_ context.Context, actor auth.Actor, taskID string) (market.TaskResult, error) {
	return api.mutate(actor.AgentID, "/tasks/"+taskID+"/cancel", "", "cancelTask", fmt.Sprintf("taskId: %q", taskID))
}

// Release releases a task.
func (api *dualAPI) Release(_ context.Context, actor auth.Actor, taskID string) (market.TaskResult, error) {
	return api.mutate(actor.AgentID, "/tasks/"+taskID+"/release", "", "releaseTask", fmt.Sprintf("taskId: %q", taskID))
}

// Extend extends the lease of a task.
func (api *dualAPI) Extend(_ context.Context, actor auth.Actor, taskID string, _ *int) (models.Task, error) {
	out, err := api.mutate(actor.AgentID, "/tasks/"+taskID+"/extend", "", "extendTask", fmt.Sprintf("taskId: %q", taskID))
	return out.Task, err
}

// Rate rates a task.
func (api *dualAPI) Rate(_ context.Context, actor auth.Actor, in market.RateTaskInput) (models.Task, error) {
	out, err := api.mutate(actor.AgentID, "/tasks/"+in.TaskID+"/rate", fmt.Sprintf(`{"score":%d}`, in.Score),
		"rateTask", fmt.Sprintf("taskId: %q, score: %d", in.TaskID, in.Score))
	return out.Task, err
}

// Execute hires an agent.
func (api *dualAPI) Execute(_ context.Context, actor auth.Actor, in market.ExecuteInput) (market.TaskResult, error) {
	return api.mutate(actor.AgentID, "/execute",
		fmt.Sprintf(`{"agent_id":%q,"task_description":%q,"budget":%d}`, in.AgentID, in.TaskDescription, in.Budget),
		"execute", fmt.Sprintf("agentId: %q, taskDescription: %q, budget: %d", in.AgentID, in.TaskDescription, in.Budget))
}

// Task reads a task over both APIs.
func (api *dualAPI) Task(_ context.Context, viewerID, id string) (*models.Task, error) {
	var data struct {
		Task struct{ Status, Origin string }
	}
	if err := api.callGraphQL(viewerID, fmt.Sprintf("{ task(id: %q) { status origin } }", id), &data); err != nil {
		return nil, err
	}
	rest, err := api.callREST(http.MethodGet, "/tasks/"+id, viewerID, "")
	status := strings.ToLower(data.Task.Status)
	if err != nil || rest.Status != status {
		return nil, fmt.Errorf("task status: REST %q (%w), GraphQL %q", rest.Status, err, status)
	}
	return &models.Task{ID: id, Status: models.Status(status), Origin: models.Origin(strings.ToLower(data.Task.Origin))}, nil
}

// Wallet reads a wallet over both APIs.
func (api *dualAPI) Wallet(_ context.Context, agentID string) (*models.Wallet, error) {
	var data struct {
		Viewer struct {
			Wallet struct{ Balance, HeldBalance models.Credits }
		}
	}
	if err := api.callGraphQL(agentID, "{ viewer { wallet { balance heldBalance } } }", &data); err != nil {
		return nil, err
	}
	wallet := data.Viewer.Wallet
	rest, err := api.callREST(http.MethodGet, "/wallet", agentID, "")
	if err != nil || rest.Balance != wallet.Balance {
		return nil, fmt.Errorf("balance: REST %d (%w), GraphQL %d", rest.Balance, err, wallet.Balance)
	}
	return &models.Wallet{AgentID: agentID, Available: wallet.Balance, Held: wallet.HeldBalance}, nil
}

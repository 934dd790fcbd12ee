package compat

import (
	"context"
	"net/http"
	"reflect"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/models"
)

// route is one row of the table that everything about REST comes from.
type route struct {
	method  string
	path    string
	name    string // of the operation, in the OpenAPI document
	tag     string
	auth    bool // a key is needed
	alike   bool // everybody is answered the same, but for their balance
	summary string
	filters []string // parameters in the query
	// refusals are the codes that are its own; see [usual] for everybody's.
	refusals []models.Code
	example  example
	// waits is for a route that can take long and is answered with 202 then, or when
	// the client prefers not to wait.
	waits bool

	request, response reflect.Type
	handle            func(context.Context, *call) (any, error)
}

// Operation is a route, for who tells of the API.
type Operation struct {
	Method, Path, Summary string
	Key                   bool // an API key is needed
}

// Operations are all routes, in the order of the documentation.
func Operations() []Operation {
	var all []Operation
	for _, rt := range (&door{}).routes() {
		all = append(all, Operation{Method: rt.method, Path: rt.path, Summary: rt.summary, Key: rt.auth})
	}
	return all
}

// example is a request and its answer as the OpenAPI document shows them.
type example struct {
	request any // nil for a route without a body
	data    any
	balance models.Credits // 0 for an answer without one
}

// nothing is the body of a request that says everything by its path.
type nothing struct{}

// to completes a row with what serves it. Bodies are read as In.
func to[In, Out any](rt route, serve func(context.Context, *call, In) (Out, error)) route {
	rt.request, rt.response = reflect.TypeFor[In](), reflect.TypeFor[Out]()
	rt.handle = func(ctx context.Context, c *call) (any, error) {
		in, err := decode[In](c.fields)
		if err != nil {
			return nil, err
		}
		return serve(ctx, c, in)
	}
	return rt
}

// call makes sure of a key where one is needed, reads the body and serves the
// request.
func (rt *route) call(ctx context.Context, c *call) (any, error) {
	if rt.auth {
		if _, err := auth.Require(ctx); err != nil {
			return nil, err
		}
	}
	if rt.method != http.MethodGet {
		var err error
		if c.fields, err = readBody(c.request); err != nil {
			return nil, err
		}
	}
	return rt.handle(ctx, c)
}

// Tags of the table, in the order of the documentation.
const (
	tagAgents   = "Agents"
	tagTasks    = "Tasks"
	tagWallet   = "Wallet"
	tagHiring   = "Direct Execution"
	tagWebhooks = "Webhooks"
)

// routes is the table. The first thirteen are the documented ones, the others
// give REST clients what the documentation leaves to GraphQL.
func (d *door) routes() []route {
	const get, post, put, del = http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete
	return []route{
		to(route{
			method: post, path: "/api/agents/register", name: "registerAgent", tag: tagAgents,
			summary: "Register a new agent. Returns an API key and the free starting credits.",
			example: registerExample(),
		}, d.register),
		to(route{
			method: get, path: "/api/agents", name: "listAgents", tag: tagAgents, alike: true, filters: []string{"capability", "limit", "cursor"},
			summary: "List all registered agents, newest first. Filter by capability.",
			example: example{data: []agentAnswer{exampleAgent()}},
		}, d.listAgents),
		to(route{
			method: get, path: "/api/agents/{id}", name: "getAgent", tag: tagAgents, alike: true,
			summary:  "Get a specific agent's public profile.",
			refusals: []models.Code{models.NotFound},
			example:  example{data: exampleAgent()},
		}, d.agent),
		to(route{
			method: get, path: "/api/agents/me", name: "getMe", tag: tagAgents, auth: true,
			summary: "Get your own profile and balance.",
			example: example{data: exampleMe(), balance: 85},
		}, d.me),
		to(route{
			method: post, path: "/api/tasks", name: "postTask", tag: tagTasks, auth: true,
			summary:  "Post a new task to the marketplace. Its budget is set aside.",
			refusals: []models.Code{models.InsufficientFunds},
			example:  postExample(),
		}, d.postTask),
		to(route{
			method: get, path: "/api/tasks", name: "listTasks", tag: tagTasks, alike: true, filters: []string{"status", "capability", "limit", "cursor"},
			summary: "List tasks, newest first. Filter by status and capability.",
			example: example{data: []taskAnswer{exampleTask(models.Open)}},
		}, d.listTasks),
		to(route{
			method: get, path: "/api/tasks/{id}", name: "getTask", tag: tagTasks,
			summary:  "Get details of a specific task. Its result is shown to its poster and its worker.",
			refusals: []models.Code{models.NotFound},
			example:  example{data: exampleTask(models.Open)},
		}, d.task),
		to(route{
			method: post, path: "/api/tasks/{id}/accept", name: "acceptTask", tag: tagTasks, auth: true,
			summary:  "Accept an open task. Budget is escrowed from the poster's wallet.",
			refusals: []models.Code{models.Forbidden, models.NotFound, models.Conflict},
			example:  example{data: exampleTask(models.Assigned), balance: 85},
		}, d.acceptTask),
		to(route{
			method: post, path: "/api/tasks/{id}/complete", name: "completeTask", tag: tagTasks, auth: true,
			summary:  "Submit your result for an assigned task. Credits are transferred (90% to you, 10% platform fee).",
			refusals: []models.Code{models.Forbidden, models.NotFound, models.Conflict},
			example:  completeExample(),
		}, d.completeTask),
		to(route{
			method: get, path: "/api/wallet", name: "getWallet", tag: tagWallet, auth: true,
			summary: "Check your current credit balance.",
			example: example{data: walletAnswer{AgentID: exampleAgentID, Balance: 107}, balance: 107},
		}, d.wallet),
		to(route{
			method: post, path: "/api/execute", name: "execute", tag: tagHiring, auth: true,
			summary: "Hire an agent and get an immediate result. The agent runs via its endpoint_url or system_prompt. Payment is processed automatically.",
			refusals: []models.Code{
				models.InsufficientFunds, models.Forbidden, models.NotFound, models.Conflict,
				models.ExecutionFailed, models.Unavailable, models.ExecutionTimeout,
			},
			example: executeExample(), waits: true,
		}, d.execute),
		to(route{
			method: get, path: "/api/agents/me/webhook", name: "getWebhook", tag: tagWebhooks, auth: true,
			summary: "View your current webhook URL (masked for security).",
			example: example{data: exampleWebhookView(), balance: 85},
		}, d.webhook),
		to(route{
			method: put, path: "/api/agents/me/webhook", name: "setWebhook", tag: tagWebhooks, auth: true,
			summary: "Set or update your webhook URL. Must start with https://.",
			example: example{
				request: webhookRequest{WebhookURL: "https://my-agent.com/webhooks/agentmarket"},
				data:    exampleWebhook("...gentmarket"), balance: 85,
			},
		}, d.setWebhook),

		to(route{
			method: del, path: "/api/agents/me/webhook", name: "removeWebhook", tag: tagWebhooks, auth: true,
			summary: "Remove your webhook.",
			example: example{data: webhookAnswer{}, balance: 85},
		}, d.removeWebhook),
		to(route{
			method: post, path: "/api/tasks/{id}/cancel", name: "cancelTask", tag: tagTasks, auth: true,
			summary:  "Take back an open task that you posted, or a hire that is under way. Its budget comes back.",
			refusals: []models.Code{models.Forbidden, models.NotFound, models.Conflict},
			example:  example{data: exampleTask(models.Cancelled), balance: 100},
		}, d.cancelTask),
		to(route{
			method: post, path: "/api/tasks/{id}/release", name: "releaseTask", tag: tagTasks, auth: true,
			summary:  "Give a task that you work on back to the marketplace. It is open again; a hire has failed.",
			refusals: []models.Code{models.Forbidden, models.NotFound, models.Conflict},
			example:  example{data: exampleTask(models.Open), balance: 85},
		}, d.releaseTask),
		to(route{
			method: post, path: "/api/tasks/{id}/extend", name: "extendTask", tag: tagTasks, auth: true,
			summary:  "Have more time for a task that you work on.",
			refusals: []models.Code{models.Forbidden, models.NotFound, models.Conflict},
			example:  extendExample(),
		}, d.extendTask),
		to(route{
			method: post, path: "/api/tasks/{id}/rate", name: "rateTask", tag: tagTasks, auth: true,
			summary:  "Rate a completed task that you posted, once.",
			refusals: []models.Code{models.Forbidden, models.NotFound, models.Conflict},
			example:  rateExample(),
		}, d.rateTask),
	}
}

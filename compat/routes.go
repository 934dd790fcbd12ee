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
	method      string
	path        string
	name        string // of the operation, in the OpenAPI document
	tag         string
	requiresKey bool // a key is needed
	public      bool // everybody is answered the same, but for their balance
	summary     string
	queryParams []string // parameters in the query
	// refusals are the codes that are its own; see [usual] for everybody's.
	errorCodes []models.Code
	example    example
	// waits is for a route that can take long and is answered with 202 then, or when
	// the client prefers not to wait.
	supportsAsync bool

	request, response reflect.Type
	handle            func(context.Context, *call) (any, error)
}

// Operation is a route, for who tells of the API.
type Operation struct {
	Method, Path, Summary string
	RequiresKey           bool // an API key is needed
}

// Operations are all routes, in the order of the documentation.
func Operations() []Operation {
	var all []Operation
	for _, rt := range (&handler{}).routes() {
		all = append(all, Operation{Method: rt.method, Path: rt.path, Summary: rt.summary, RequiresKey: rt.requiresKey})
	}
	return all
}

// example is a request and its answer as the OpenAPI document shows them.
type example struct {
	request any // nil for a route without a body
	data    any
	balance models.Credits // 0 for an answer without one
}

// noBody is the body of a request that says everything by its path.
type noBody struct{}

// withHandler completes a row with what serves it. Bodies are read as In.
func withHandler[In, Out any](rt route, serve func(context.Context, *call, In) (Out, error)) route {
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
	if rt.requiresKey {
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
func (d *handler) routes() []route {
	const get, post, put, del = http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete
	return []route{
		withHandler(route{
			method: post, path: "/api/agents/register", name: "registerAgent", tag: tagAgents,
			summary: "Register a new agent. Returns an API key and the free starting credits.",
			example: registerExample(),
		}, d.registerAgent),
		withHandler(route{
			method: get, path: "/api/agents", name: "listAgents", tag: tagAgents, public: true, queryParams: []string{"capability", "limit", "cursor"},
			summary: "List all registered agents, newest first. Filter by capability.",
			example: example{data: []agentResponse{exampleAgent()}},
		}, d.listAgents),
		withHandler(route{
			method: get, path: "/api/agents/{id}", name: "getAgent", tag: tagAgents, public: true,
			summary:    "Get a specific agent's public profile.",
			errorCodes: []models.Code{models.NotFound},
			example:    example{data: exampleAgent()},
		}, d.getAgent),
		withHandler(route{
			method: get, path: "/api/agents/me", name: "getMe", tag: tagAgents, requiresKey: true,
			summary: "Get your own profile and balance.",
			example: example{data: exampleMe(), balance: 85},
		}, d.getMe),
		withHandler(route{
			method: post, path: "/api/tasks", name: "postTask", tag: tagTasks, requiresKey: true,
			summary:    "Post a new task to the marketplace. Its budget is set aside.",
			errorCodes: []models.Code{models.InsufficientFunds},
			example:    postExample(),
		}, d.postTask),
		withHandler(route{
			method: get, path: "/api/tasks", name: "listTasks", tag: tagTasks, public: true, queryParams: []string{"status", "capability", "limit", "cursor"},
			summary: "List tasks, newest first. Filter by status and capability.",
			example: example{data: []taskResponse{exampleTask(models.Open)}},
		}, d.listTasks),
		withHandler(route{
			method: get, path: "/api/tasks/{id}", name: "getTask", tag: tagTasks,
			summary:    "Get details of a specific task. Its result is shown to its poster and its worker.",
			errorCodes: []models.Code{models.NotFound},
			example:    example{data: exampleTask(models.Open)},
		}, d.getTask),
		withHandler(route{
			method: post, path: "/api/tasks/{id}/accept", name: "acceptTask", tag: tagTasks, requiresKey: true,
			summary:    "Accept an open task. Budget is escrowed from the poster's wallet.",
			errorCodes: []models.Code{models.Forbidden, models.NotFound, models.Conflict},
			example:    example{data: exampleTask(models.Assigned), balance: 85},
		}, d.acceptTask),
		withHandler(route{
			method: post, path: "/api/tasks/{id}/complete", name: "completeTask", tag: tagTasks, requiresKey: true,
			summary:    "Submit your result for an assigned task. Credits are transferred (90% to you, 10% platform fee).",
			errorCodes: []models.Code{models.Forbidden, models.NotFound, models.Conflict},
			example:    completeExample(),
		}, d.completeTask),
		withHandler(route{
			method: get, path: "/api/wallet", name: "getWallet", tag: tagWallet, requiresKey: true,
			summary: "Check your current credit balance.",
			example: example{data: walletResponse{AgentID: exampleAgentID, Balance: 107}, balance: 107},
		}, d.getWallet),
		withHandler(route{
			method: post, path: "/api/execute", name: "execute", tag: tagHiring, requiresKey: true,
			summary: "Hire an agent and get an immediate result. The agent runs via its endpoint_url or system_prompt. Payment is processed automatically.",
			errorCodes: []models.Code{
				models.InsufficientFunds, models.Forbidden, models.NotFound, models.Conflict,
				models.ExecutionFailed, models.Unavailable, models.ExecutionTimeout,
			},
			example: executeExample(), supportsAsync: true,
		}, d.execute),
		withHandler(route{
			method: get, path: "/api/agents/me/webhook", name: "getWebhook", tag: tagWebhooks, requiresKey: true,
			summary: "View your current webhook URL (masked for security).",
			example: example{data: exampleWebhookView(), balance: 85},
		}, d.getWebhook),
		withHandler(route{
			method: put, path: "/api/agents/me/webhook", name: "setWebhook", tag: tagWebhooks, requiresKey: true,
			summary: "Set or update your webhook URL. Must start with https://.",
			example: example{
				request: webhookRequest{WebhookURL: "https://my-agent.com/webhooks/agentmarket"},
				data:    exampleWebhook("...gentmarket"), balance: 85,
			},
		}, d.setWebhook),

		withHandler(route{
			method: del, path: "/api/agents/me/webhook", name: "removeWebhook", tag: tagWebhooks, requiresKey: true,
			summary: "Remove your webhook.",
			example: example{data: webhookResponse{}, balance: 85},
		}, d.removeWebhook),
		withHandler(route{
			method: post, path: "/api/tasks/{id}/cancel", name: "cancelTask", tag: tagTasks, requiresKey: true,
			summary:    "Take back an open task that you posted, or a hire that is under way. Its budget comes back.",
			errorCodes: []models.Code{models.Forbidden, models.NotFound, models.Conflict},
			example:    example{data: exampleTask(models.Cancelled), balance: 100},
		}, d.cancelTask),
		withHandler(route{
			method: post, path: "/api/tasks/{id}/release", name: "releaseTask", tag: tagTasks, requiresKey: true,
			summary:    "Give a task that you work on back to the marketplace. It is open again; a hire has failed.",
			errorCodes: []models.Code{models.Forbidden, models.NotFound, models.Conflict},
			example:    example{data: exampleTask(models.Open), balance: 85},
		}, d.releaseTask),
		withHandler(route{
			method: post, path: "/api/tasks/{id}/extend", name: "extendTask", tag: tagTasks, requiresKey: true,
			summary:    "Have more time for a task that you work on.",
			errorCodes: []models.Code{models.Forbidden, models.NotFound, models.Conflict},
			example:    extendExample(),
		}, d.extendTask),
		withHandler(route{
			method: post, path: "/api/tasks/{id}/rate", name: "rateTask", tag: tagTasks, requiresKey: true,
			summary:    "Rate a completed task that you posted, once.",
			errorCodes: []models.Code{models.Forbidden, models.NotFound, models.Conflict},
			example:    rateExample(),
		}, d.rateTask),
	}
}

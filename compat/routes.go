package compat

import (
	"context"
	"net/http"
	"reflect"
	"slices"

	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/graph/operation"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/models"
)

// route is a row of the table of routes.
type route struct {
	method      string
	path        string
	name        string // operationId in the OpenAPI document
	tag         string
	requiresKey bool   // an API key is required
	query       string // the Query field that a GET route reads
	summary     string
	queryParams []string // query parameters
	// errorCodes are the codes of this route, in addition to commonErrorCodes.
	errorCodes []models.Code
	example    example
	// supportsAsync marks a route that can respond with 202 before it is done.
	supportsAsync bool

	request, response reflect.Type
	handle            func(context.Context, *call) (any, error)
}

// Operation describes a route.
type Operation struct {
	Method, Path, Summary string
	RequiresKey           bool // an API key is required
}

// Operations returns all routes in the order of the documentation.
func Operations() []Operation {
	var all []Operation
	for _, rt := range (&handler{}).routes() {
		all = append(all, Operation{Method: rt.method, Path: rt.path, Summary: rt.summary, RequiresKey: rt.requiresKey})
	}
	return all
}

// example is the example of a request and its response in the OpenAPI document.
type example struct {
	request any // nil for a route without a request body
	data    any
	balance models.Credits // 0 for a response without a balance
}

// noBody is the request type of a route without a request body.
type noBody struct{}

// withHandler adds the handler of a route. The request body is decoded to In.
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

// isPrivate reports whether the response to a GET request depends on the caller,
// apart from the balance. The schema says so for the field that the route reads.
func (rt *route) isPrivate() bool {
	field := generated.NewExecutableSchema(generated.Config{}).Schema().Query.Fields.ForName(rt.query)
	return field == nil || operation.IsPrivateField(field)
}

// call checks for an API key if one is required, reads the body and calls the handler.
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

// Tags of the routes, in the order of the documentation.
const (
	tagAgents   = "Agents"
	tagTasks    = "Tasks"
	tagWallet   = "Wallet"
	tagHiring   = "Direct Execution"
	tagWebhooks = "Webhooks"
)

// routes returns the table.
func (h *handler) routes() []route {
	return slices.Concat(h.documentedRoutes(), h.additionalRoutes())
}

// documentedRoutes returns the routes of the documented API.
func (h *handler) documentedRoutes() []route {
	const get, post, put = http.MethodGet, http.MethodPost, http.MethodPut
	return []route{
		withHandler(route{
			method: post, path: "/api/agents/register", name: "registerAgent", tag: tagAgents,
			summary: "Register a new agent. Returns an API key and the free starting credits.",
			example: registerExample(),
		}, h.registerAgent),
		withHandler(route{
			method: get, path: "/api/agents", name: "listAgents", query: "agents", tag: tagAgents, queryParams: []string{"capability", "limit", "cursor"},
			summary: "List all registered agents, newest first. Filter by capability.",
			example: example{data: []agentResponse{exampleAgent()}},
		}, h.listAgents),
		withHandler(route{
			method: get, path: "/api/agents/{id}", name: "getAgent", query: "agent", tag: tagAgents,
			summary:    "Get a specific agent's public profile.",
			errorCodes: []models.Code{models.NotFound},
			example:    example{data: exampleAgent()},
		}, h.getAgent),
		withHandler(route{
			method: get, path: "/api/agents/me", name: "getMe", query: "viewer", tag: tagAgents, requiresKey: true,
			summary: "Get your own profile and balance.",
			example: example{data: exampleMe(), balance: 85},
		}, h.getMe),
		withHandler(route{
			method: post, path: "/api/tasks", name: "postTask", tag: tagTasks, requiresKey: true,
			summary:    "Post a new task to the marketplace. Its budget is set aside.",
			errorCodes: []models.Code{models.InsufficientFunds},
			example:    postExample(),
		}, h.postTask),
		withHandler(route{
			method: get, path: "/api/tasks", name: "listTasks", query: "tasks", tag: tagTasks, queryParams: []string{"status", "capability", "limit", "cursor"},
			summary: "List tasks, newest first. Filter by status and capability.",
			example: example{data: []taskResponse{exampleTask(models.Open)}},
		}, h.listTasks),
		withHandler(route{
			method: get, path: "/api/tasks/{id}", name: "getTask", query: "task", tag: tagTasks,
			summary:    "Get details of a specific task. Only its poster and its worker see the result.",
			errorCodes: []models.Code{models.NotFound},
			example:    example{data: exampleTask(models.Open)},
		}, h.getTask),
		withHandler(route{
			method: post, path: "/api/tasks/{id}/accept", name: "acceptTask", tag: tagTasks, requiresKey: true,
			summary:    "Accept an open task. Budget is escrowed from the poster's wallet.",
			errorCodes: []models.Code{models.Forbidden, models.NotFound, models.Conflict},
			example:    example{data: exampleTask(models.Assigned), balance: 85},
		}, h.acceptTask),
		withHandler(route{
			method: post, path: "/api/tasks/{id}/complete", name: "completeTask", tag: tagTasks, requiresKey: true,
			summary:    "Submit your result for an assigned task. Credits are transferred (90% to you, 10% platform fee).",
			errorCodes: []models.Code{models.Forbidden, models.NotFound, models.Conflict},
			example:    completeExample(),
		}, h.completeTask),
		withHandler(route{
			method: get, path: "/api/wallet", name: "getWallet", query: "viewer", tag: tagWallet, requiresKey: true,
			summary: "Check your current credit balance.",
			example: example{data: walletResponse{AgentID: exampleAgentID, Balance: 107}, balance: 107},
		}, h.getWallet),
		withHandler(route{
			method: post, path: "/api/execute", name: "execute", tag: tagHiring, requiresKey: true,
			summary: "Hire an agent and get an immediate result. The agent runs via its endpoint_url or system_prompt. Payment is processed automatically.",
			errorCodes: []models.Code{
				models.InsufficientFunds, models.Forbidden, models.NotFound, models.Conflict,
				models.ExecutionFailed, models.Unavailable, models.ExecutionTimeout,
			},
			example: executeExample(), supportsAsync: true,
		}, h.execute),
		withHandler(route{
			method: get, path: "/api/agents/me/webhook", name: "getWebhook", query: "viewer", tag: tagWebhooks, requiresKey: true,
			summary: "View your current webhook URL (masked for security).",
			example: example{data: exampleWebhookView(), balance: 85},
		}, h.getWebhook),
		withHandler(route{
			method: put, path: "/api/agents/me/webhook", name: "setWebhook", tag: tagWebhooks, requiresKey: true,
			summary: "Set or update your webhook URL. Must start with https://.",
			example: example{
				request: webhookRequest{WebhookURL: "https://my-agent.com/webhooks/agentmarket"},
				data:    exampleWebhook("...gentmarket"), balance: 85,
			},
		}, h.setWebhook),
	}
}

// additionalRoutes returns routes that make more of the GraphQL API available over REST.
func (h *handler) additionalRoutes() []route {
	const post, del = http.MethodPost, http.MethodDelete
	return []route{
		withHandler(route{
			method: del, path: "/api/agents/me/webhook", name: "removeWebhook", tag: tagWebhooks, requiresKey: true,
			summary: "Remove your webhook.",
			example: example{data: webhookResponse{}, balance: 85},
		}, h.removeWebhook),
		withHandler(route{
			method: post, path: "/api/tasks/{id}/cancel", name: "cancelTask", tag: tagTasks, requiresKey: true,
			summary:    "Cancel an open task that you posted, or a running hire. The budget is returned to you.",
			errorCodes: []models.Code{models.Forbidden, models.NotFound, models.Conflict},
			example:    example{data: exampleTask(models.Cancelled), balance: 100},
		}, h.cancelTask),
		withHandler(route{
			method: post, path: "/api/tasks/{id}/release", name: "releaseTask", tag: tagTasks, requiresKey: true,
			summary:    "Return a task that you are working on to the marketplace. It becomes open again; a hire fails.",
			errorCodes: []models.Code{models.Forbidden, models.NotFound, models.Conflict},
			example:    example{data: exampleTask(models.Open), balance: 85},
		}, h.releaseTask),
		withHandler(route{
			method: post, path: "/api/tasks/{id}/extend", name: "extendTask", tag: tagTasks, requiresKey: true,
			summary:    "Extend the deadline of a task that you are working on.",
			errorCodes: []models.Code{models.Forbidden, models.NotFound, models.Conflict},
			example:    extendExample(),
		}, h.extendTask),
		withHandler(route{
			method: post, path: "/api/tasks/{id}/rate", name: "rateTask", tag: tagTasks, requiresKey: true,
			summary:    "Rate a completed task that you posted. Each task can be rated once.",
			errorCodes: []models.Code{models.Forbidden, models.NotFound, models.Conflict},
			example:    rateExample(),
		}, h.rateTask),
	}
}

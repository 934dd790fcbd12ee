package app

import (
	"net/http"
	"strings"

	"agentmarket.space/server/compat"
	"agentmarket.space/server/compat/reference"
	"agentmarket.space/server/graph"
	"agentmarket.space/server/graph/explorer"
	"agentmarket.space/server/internal/guide"
	"agentmarket.space/server/internal/idempotency"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/pages"
	"agentmarket.space/server/models"
)

// pageRoutes returns the handlers of the public pages, by pattern.
func (a *App) pageRoutes() (map[string]http.Handler, error) {
	facts := a.guideFacts()
	skill, err := guide.Skill(facts)
	if err != nil {
		return nil, err
	}
	llms, err := guide.LLMs(facts)
	if err != nil {
		return nil, err
	}
	index, err := guide.Index(facts, "AgentMarket\n\n"+strings.TrimSuffix(formatInfo(a.serverURLs()), "\n"))
	if err != nil {
		return nil, err
	}
	routes := map[string]http.Handler{
		"GET /{$}": index, "GET " + guide.SkillPath: skill, "GET " + guide.LLMsPath: llms,
	}
	if facts.SchemaIsPublic {
		routes["GET "+guide.SchemaPath] = pages.NewFile(guide.SchemaPath, []byte(graph.Schema()))
	}
	for path, page := range map[string]http.Handler{
		explorer.Path: explorer.Handler(), reference.Path: reference.Handler(),
	} {
		routes["GET "+path], routes["GET "+path+"/"] = page, page
	}
	return routes, nil
}

// guideFacts returns the facts about this server that the guide contains.
func (a *App) guideFacts() guide.Facts {
	c := &a.config
	facts := guide.Facts{
		URL: c.PublicURL, Version: a.version,
		StartingCredits: c.StartingCredits, MinBudget: c.MinBudget, MaxBudget: models.MaxBudget, FeePercent: models.FeePercent,
		OpenFor: c.OpenFor, Lease: c.Lease, ExecuteTimeout: c.EndpointTimeout, AsyncDeadline: c.ExecutionDeadline,
		IdempotencyKeyTTL: idempotency.KeyTTL, EventRetention: c.KeepEvents,
		WebhookRetries: c.WebhookRetries, WebhookTimeout: c.WebhookTimeout, SignatureHeader: outbound.SignatureHeader,
		SystemPromptsEnabled: c.AnthropicAPIKey != "", SchemaIsPublic: c.Introspection == "on",
		MaxBody: compat.MaxBodyBytes, MaxPage: market.MaxPageSize,
	}
	if c.RateLimits == "on" {
		rate := requestRate()
		facts.RequestLimit = &guide.RateLimit{Interval: rate.interval, Burst: rate.burst}
		facts.RegistrationLimit = &guide.RateLimit{Interval: registrationInterval, Burst: registrationBurst}
	}
	for _, op := range compat.Operations() {
		facts.Routes = append(facts.Routes, guide.Route(op))
	}
	for _, stream := range a.graph.Subscriptions() {
		facts.Subscriptions = append(facts.Subscriptions, guide.Subscription{Name: stream.Name, Summary: stream.Description})
	}
	for _, event := range models.WebhookEvents() {
		facts.Events = append(facts.Events, string(event))
	}
	for _, code := range append(compat.ErrorCodes(), models.SlowConsumer, models.CursorExpired) {
		facts.ErrorCodes = append(facts.ErrorCodes, guide.ErrorCode{Code: code, Status: compat.HTTPStatus(code), Advice: compat.Advice(code)})
	}
	return facts
}

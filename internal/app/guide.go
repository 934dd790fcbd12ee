package app

import (
	"net/http"
	"strings"

	"agentmarket.space/server/compat"
	"agentmarket.space/server/compat/reference"
	"agentmarket.space/server/graph"
	"agentmarket.space/server/graph/explorer"
	"agentmarket.space/server/internal/guide"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/pages"
	"agentmarket.space/server/models"
)

// reading is what people and agents read before they call anything, by its path.
func (a *App) reading() (map[string]http.Handler, error) {
	facts := a.facts()
	skill, err := guide.Skill(facts)
	if err != nil {
		return nil, err
	}
	llms, err := guide.LLMs(facts)
	if err != nil {
		return nil, err
	}
	front, err := guide.Front(facts, "AgentMarket\n\n"+strings.TrimSuffix(lines(a.where()), "\n"))
	if err != nil {
		return nil, err
	}
	read := map[string]http.Handler{
		"GET /{$}": front, "GET " + guide.SkillPath: skill, "GET " + guide.LLMsPath: llms,
	}
	if facts.SchemaIsPublic {
		read["GET "+guide.SchemaPath] = pages.NewFile(guide.SchemaPath, []byte(graph.Schema()))
	}
	for path, page := range map[string]http.Handler{
		explorer.Path: explorer.Handler("/graphql"), reference.Path: reference.Handler("/openapi.json"),
	} {
		read["GET "+path], read["GET "+path+"/"] = page, page
	}
	return read, nil
}

// facts is what the server tells of itself.
func (a *App) facts() guide.Facts {
	c := &a.config
	facts := guide.Facts{
		URL: c.PublicURL, Version: a.version,
		StartingCredits: c.StartCredits, MinBudget: c.MinBudget, MaxBudget: models.MaxBudget, FeePercent: models.FeePercent,
		OpenFor: c.OpenFor, Lease: c.Lease, Wait: c.EndpointTime, Deadline: c.ExecuteTime,
		KeepAnswers: market.KeepAnswers, KeepEvents: c.KeepEvents,
		WebhookRetries: c.WebhookRetries, WebhookTimeout: c.WebhookTime, SignatureHeader: outbound.SignatureHeader,
		SystemPrompts: c.ClaudeKey != "", SchemaIsPublic: c.Introspection == "on",
		MaxBody: compat.MaxBody, MaxPage: market.MaxPage,
	}
	if c.RateLimits == "on" {
		requests := requestPace()
		facts.Requests = &guide.Pace{Every: requests.every, Burst: requests.burst}
		facts.Registrations = &guide.Pace{Every: registerEvery, Burst: registerBurst}
	}
	for _, op := range compat.Operations() {
		facts.Routes = append(facts.Routes, guide.Route(op))
	}
	for _, stream := range a.graph.Streams() {
		facts.Streams = append(facts.Streams, guide.Stream{Name: stream.Name, Summary: stream.Description})
	}
	for _, event := range models.WebhookEvents() {
		facts.Events = append(facts.Events, string(event))
	}
	for _, code := range append(compat.Codes(), models.SlowConsumer, models.CursorExpired) {
		facts.Refusals = append(facts.Refusals, guide.Refusal{Code: code, Status: compat.Status(code), Advice: compat.Advice(code)})
	}
	return facts
}

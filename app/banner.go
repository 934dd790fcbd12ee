package app

import (
	"fmt"
	"io"
	"net/url"
	"strings"

	"agentmarket.space/server/database"
)

// Banner writes where everything is, and what is off and how to turn it on.
func (a *App) Banner(w io.Writer, version string) error {
	_, err := fmt.Fprintf(w, "AgentMarket %s  (%s, sealed with %s)\n%s\n%s\n", version, a.db.Place(), a.keyPlace(), a.addresses(), a.switches())
	return err
}

func (a *App) keyPlace() string {
	if a.config.SecretKey != "" {
		return "the configured key"
	}
	return database.Whole(keyPath(a.config.Database))
}

func (a *App) addresses() string {
	base := a.config.PublicURL
	socket := "ws" + strings.TrimPrefix(base, "http")
	return strings.Join([]string{
		"  GraphQL    " + base + "/graphql   explorer: " + base + "/explorer",
		"  Live       " + socket + "/graphql   graphql-transport-ws, graphql-ws, or SSE over HTTP",
		"  REST       " + base + "/api   docs: " + base + "/docs   OpenAPI: " + base + "/openapi.json",
		"  Agents     " + base + "/skill.md   how to join, to be read by them; links: " + base + "/llms.txt",
		"  Metrics    " + base + "/metrics   health: /livez /readyz",
	}, "\n")
}

func (a *App) switches() string {
	lines := []string{"  Rate limit " + a.config.RateLimits + " (AGENTMARKET_RATE_LIMITS)"}
	if a.config.OperatorKey == "" && a.config.OperatorFile == "" {
		lines = append(lines, "  Operator   no key: /metrics is open, /operator is off (set AGENTMARKET_OPERATOR_KEY)")
	} else {
		lines = append(lines, "  Operator   its key opens /metrics and /operator/audit")
	}
	if len(a.config.AllowNetworks) > 0 {
		lines = append(lines, fmt.Sprintf("  Outbound   private networks %v are allowed for webhooks and endpoints", a.config.AllowNetworks))
	} else {
		lines = append(lines, "  Outbound   https to public addresses only; allow private ones with AGENTMARKET_ALLOW_NETWORKS=127.0.0.0/8")
	}
	if a.config.ClaudeKey == "" {
		lines = append(lines, "  Execute    endpoints: on   system prompts: off (set ANTHROPIC_API_KEY)")
	} else {
		lines = append(lines, "  Execute    endpoints: on   system prompts: on ("+a.config.ClaudeModel+")")
	}
	if to, err := url.Parse(a.config.Traces); err == nil && a.config.Traces != "" {
		lines = append(lines, "  Traces     to "+to.Redacted())
	} else {
		lines = append(lines, "  Traces     off (set OTEL_EXPORTER_OTLP_ENDPOINT)")
	}
	lines = append(lines, "Try:  curl -X POST "+a.config.PublicURL+`/api/agents/register -H "Content-Type: application/json" -d '{"name":"MyBot","capabilities":["coding"]}'`)
	return strings.Join(lines, "\n")
}

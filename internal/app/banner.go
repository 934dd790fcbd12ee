package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"

	"agentmarket.space/server/internal/database"
)

// PrintStartupInfo tells where everything is, and what is off and how to turn it on: people at a
// terminal in lines, programs elsewhere in one entry of the log.
func (a *App) PrintStartupInfo(ctx context.Context, w io.Writer) error {
	if !IsTerminal(w) {
		a.logger.LogAttrs(ctx, slog.LevelInfo, "serving", a.startupAttrs()...)
		return nil
	}
	_, err := io.WriteString(w, a.banner())
	return err
}

// infoLine is one of the things that a greeting tells.
type infoLine struct{ name, text string }

// startupAttrs is the greeting of programs.
func (a *App) startupAttrs() []slog.Attr {
	attrs := []slog.Attr{slog.String("version", a.version), slog.String("store", a.db.Location()), slog.String("sealed_with", a.keyLocation())}
	for _, n := range append(a.serverURLs(), a.featureStatus()...) {
		attrs = append(attrs, slog.String(strings.ReplaceAll(strings.ToLower(n.name), " ", "_"), n.text))
	}
	return attrs
}

// banner is the greeting of people.
func (a *App) banner() string {
	var text strings.Builder
	fmt.Fprintf(&text, "AgentMarket %s  (%s, sealed with %s)\n", a.version, a.db.Location(), a.keyLocation())
	text.WriteString(formatInfo(append(a.serverURLs(), a.featureStatus()...)))
	fmt.Fprintf(&text, `Try:  curl -X POST %s/api/agents/register -H "Content-Type: application/json" -d '{"name":"MyBot","capabilities":["coding"]}'`+"\n", a.config.PublicURL)
	return text.String()
}

func (a *App) keyLocation() string {
	if a.config.SecretKey != "" {
		return "the configured key"
	}
	return database.AbsPath(keyPath(a.config.Database))
}

func formatInfo(notes []infoLine) string {
	var text strings.Builder
	for _, n := range notes {
		fmt.Fprintf(&text, "  %-10s %s\n", n.name, n.text)
	}
	return text.String()
}

// serverURLs is where everything is.
func (a *App) serverURLs() []infoLine {
	base := a.config.PublicURL
	return []infoLine{
		{"GraphQL", base + "/graphql   explorer: " + base + "/explorer"},
		{"Live", "ws" + strings.TrimPrefix(base, "http") + "/graphql   graphql-transport-ws, graphql-ws, or SSE over HTTP"},
		{"REST", base + "/api   docs: " + base + "/docs   OpenAPI: " + base + "/openapi.json"},
		{"Agents", base + "/skill.md   how to join, to be read by them; links: " + base + "/llms.txt"},
		{"Metrics", base + "/metrics   health: /livez /readyz"},
	}
}

// featureStatus are what is on and what is off.
func (a *App) featureStatus() []infoLine {
	operator := "its key opens /metrics and /operator/audit"
	if a.config.OperatorKey == "" && a.config.OperatorKeyFile == "" {
		operator = "no key: /metrics is open, /operator is off (set AGENTMARKET_OPERATOR_KEY)"
	}
	calls := "https to public addresses only; allow private ones with AGENTMARKET_ALLOW_NETWORKS=127.0.0.0/8"
	if len(a.config.AllowNetworks) > 0 {
		calls = fmt.Sprintf("private networks %v are allowed for webhooks and endpoints", a.config.AllowNetworks)
	}
	hires := "endpoints: on   system prompts: off (set ANTHROPIC_API_KEY)"
	if a.config.AnthropicAPIKey != "" {
		hires = "endpoints: on   system prompts: on (" + a.config.ClaudeModel + ")"
	}
	traces := "off (set OTEL_EXPORTER_OTLP_ENDPOINT)"
	if to, err := url.Parse(a.config.OTLPEndpoint); err == nil && a.config.OTLPEndpoint != "" {
		traces = "to " + to.Redacted()
	}
	return []infoLine{
		{"Rate limit", a.config.RateLimits + " (AGENTMARKET_RATE_LIMITS)"},
		{"Operator", operator},
		{"Outbound", calls},
		{"Execute", hires},
		{"Traces", traces},
	}
}

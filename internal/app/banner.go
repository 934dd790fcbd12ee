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

// PrintStartupInfo prints the URLs of the server, and which features are off and how
// to enable them. It prints lines to a terminal, and a single log entry otherwise.
func (a *App) PrintStartupInfo(ctx context.Context, w io.Writer) error {
	if !IsTerminal(w) {
		a.logger.LogAttrs(ctx, slog.LevelInfo, "serving", a.startupAttrs()...)
		return nil
	}
	_, err := io.WriteString(w, a.banner())
	return err
}

// infoLine is a line of the banner.
type infoLine struct{ name, text string }

// startupAttrs returns the banner as log attributes.
func (a *App) startupAttrs() []slog.Attr {
	attrs := []slog.Attr{slog.String("version", a.version), slog.String("listening", a.config.Addr), slog.String("store", a.db.Location()), slog.String("encrypted_with", a.keyLocation())}
	for _, line := range append(a.serverURLs(), a.featureStatus()...) {
		attrs = append(attrs, slog.String(strings.ReplaceAll(strings.ToLower(line.name), " ", "_"), line.text))
	}
	return attrs
}

// banner returns the banner for a terminal.
func (a *App) banner() string {
	var text strings.Builder
	fmt.Fprintf(&text, "AgentMarket %s  (%s, secrets encrypted with %s)\n", a.version, a.db.Location(), a.keyLocation())
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

func formatInfo(lines []infoLine) string {
	var text strings.Builder
	for _, line := range lines {
		fmt.Fprintf(&text, "  %-10s %s\n", line.name, line.text)
	}
	return text.String()
}

// serverURLs lists the URLs of the server.
func (a *App) serverURLs() []infoLine {
	base := a.config.PublicURL
	return []infoLine{
		{"GraphQL", base + "/graphql   explorer: " + base + "/explorer"},
		{"Live", "ws" + strings.TrimPrefix(base, "http") + "/graphql   graphql-transport-ws, graphql-ws, or SSE over HTTP"},
		{"REST", base + "/api   docs: " + base + "/docs   OpenAPI: " + base + "/openapi.json"},
		{"Agents", base + "/skill.md   instructions for agents; links: " + base + "/llms.txt"},
		{"Metrics", base + "/metrics   health: /livez /readyz"},
	}
}

// featureStatus lists the optional features and whether they are on.
func (a *App) featureStatus() []infoLine {
	operator := "on: /metrics and /operator require the operator key"
	if a.config.OperatorKey == "" && a.config.OperatorKeyFile == "" {
		operator = "off: /metrics is public, /operator is disabled (set AGENTMARKET_OPERATOR_KEY)"
	}
	outbound := "HTTPS to public addresses only (allow private networks with AGENTMARKET_ALLOW_NETWORKS=127.0.0.0/8)"
	if len(a.config.AllowNetworks) > 0 {
		outbound = fmt.Sprintf("webhooks and endpoints may use the private networks %v", a.config.AllowNetworks)
	}
	execute := "endpoints: on   system prompts: off (set ANTHROPIC_API_KEY)"
	if a.config.AnthropicAPIKey != "" {
		execute = "endpoints: on   system prompts: on (" + a.config.ClaudeModel + ")"
	}
	traces := "off (set OTEL_EXPORTER_OTLP_ENDPOINT)"
	if endpoint, err := url.Parse(a.config.OTLPEndpoint); err == nil && a.config.OTLPEndpoint != "" {
		traces = "on, sent to " + endpoint.Redacted()
	}
	return []infoLine{
		{"Rate limit", a.config.RateLimits + " (AGENTMARKET_RATE_LIMITS)"},
		{"Operator", operator},
		{"Outbound", outbound},
		{"Execute", execute},
		{"Traces", traces},
	}
}

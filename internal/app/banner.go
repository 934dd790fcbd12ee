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

// Greet tells where everything is, and what is off and how to turn it on: people at a
// terminal in lines, programs elsewhere in one entry of the log.
func (a *App) Greet(ctx context.Context, w io.Writer) error {
	if !Terminal(w) {
		a.logger.LogAttrs(ctx, slog.LevelInfo, "serving", a.entry()...)
		return nil
	}
	_, err := io.WriteString(w, a.banner())
	return err
}

// note is one of the things that a greeting tells.
type note struct{ name, text string }

// entry is the greeting of programs.
func (a *App) entry() []slog.Attr {
	attrs := []slog.Attr{slog.String("version", a.version), slog.String("store", a.db.Place()), slog.String("sealed_with", a.keyPlace())}
	for _, n := range append(a.where(), a.switches()...) {
		attrs = append(attrs, slog.String(strings.ReplaceAll(strings.ToLower(n.name), " ", "_"), n.text))
	}
	return attrs
}

// banner is the greeting of people.
func (a *App) banner() string {
	var text strings.Builder
	fmt.Fprintf(&text, "AgentMarket %s  (%s, sealed with %s)\n", a.version, a.db.Place(), a.keyPlace())
	text.WriteString(lines(append(a.where(), a.switches()...)))
	fmt.Fprintf(&text, `Try:  curl -X POST %s/api/agents/register -H "Content-Type: application/json" -d '{"name":"MyBot","capabilities":["coding"]}'`+"\n", a.config.PublicURL)
	return text.String()
}

func (a *App) keyPlace() string {
	if a.config.SecretKey != "" {
		return "the configured key"
	}
	return database.Whole(keyPath(a.config.Database))
}

func lines(notes []note) string {
	var text strings.Builder
	for _, n := range notes {
		fmt.Fprintf(&text, "  %-10s %s\n", n.name, n.text)
	}
	return text.String()
}

// where is where everything is.
func (a *App) where() []note {
	base := a.config.PublicURL
	return []note{
		{"GraphQL", base + "/graphql   explorer: " + base + "/explorer"},
		{"Live", "ws" + strings.TrimPrefix(base, "http") + "/graphql   graphql-transport-ws, graphql-ws, or SSE over HTTP"},
		{"REST", base + "/api   docs: " + base + "/docs   OpenAPI: " + base + "/openapi.json"},
		{"Agents", base + "/skill.md   how to join, to be read by them; links: " + base + "/llms.txt"},
		{"Metrics", base + "/metrics   health: /livez /readyz"},
	}
}

// switches are what is on and what is off.
func (a *App) switches() []note {
	operator := "its key opens /metrics and /operator/audit"
	if a.config.OperatorKey == "" && a.config.OperatorFile == "" {
		operator = "no key: /metrics is open, /operator is off (set AGENTMARKET_OPERATOR_KEY)"
	}
	calls := "https to public addresses only; allow private ones with AGENTMARKET_ALLOW_NETWORKS=127.0.0.0/8"
	if len(a.config.AllowNetworks) > 0 {
		calls = fmt.Sprintf("private networks %v are allowed for webhooks and endpoints", a.config.AllowNetworks)
	}
	hires := "endpoints: on   system prompts: off (set ANTHROPIC_API_KEY)"
	if a.config.ClaudeKey != "" {
		hires = "endpoints: on   system prompts: on (" + a.config.ClaudeModel + ")"
	}
	traces := "off (set OTEL_EXPORTER_OTLP_ENDPOINT)"
	if to, err := url.Parse(a.config.Traces); err == nil && a.config.Traces != "" {
		traces = "to " + to.Redacted()
	}
	return []note{
		{"Rate limit", a.config.RateLimits + " (AGENTMARKET_RATE_LIMITS)"},
		{"Operator", operator},
		{"Outbound", calls},
		{"Execute", hires},
		{"Traces", traces},
	}
}

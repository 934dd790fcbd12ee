package app

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"agentmarket.space/server/internal/config"
)

// TestBanner checks that the banner has the URLs and the disabled features, and no
// secret.
func TestBanner(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, func(c *config.Config) {
		c.SecretKey, c.Database = "a planted secret key", filepath.Join(t.TempDir(), "agentmarket.db")
	})
	for _, want := range []string{
		"AgentMarket test", "sqlite " + b.config.Database, "Traces     off (set OTEL_EXPORTER_OTLP_ENDPOINT)", "http://market.example/graphql", "ws://market.example/graphql", "http://market.example/api", "/explorer",
		"/openapi.json", "/metrics", "Rate limit off", "system prompts: off (set ANTHROPIC_API_KEY)", "curl -X POST http://market.example/api/agents/register",
	} {
		if text := b.banner(); !strings.Contains(text, want) || strings.Contains(text, "planted") {
			t.Errorf("want %q and no secret key in the banner:\n%s", want, text)
		}
	}
}

// TestPrintStartupInfo checks that the startup info is a single log entry if the output
// is not a terminal.
func TestPrintStartupInfo(t *testing.T) {
	t.Parallel()
	var log, out bytes.Buffer
	b := newTestServer(t, nil)
	b.logger = NewLogger(&log)
	if err := b.PrintStartupInfo(t.Context(), &out); err != nil || out.Len() > 0 {
		t.Fatalf("wrote %q (%v)", out.String(), err)
	}
	var entry map[string]string
	if err := json.Unmarshal(log.Bytes(), &entry); err != nil {
		t.Fatalf("%v in %s", err, log.String())
	}
	for name, want := range map[string]string{
		"msg": "serving", "listening": "127.0.0.1:0", "store": b.config.Database, "graphql": "http://market.example/graphql ", "rest": "/docs",
		"operator": "AGENTMARKET_OPERATOR_KEY", "execute": "set ANTHROPIC_API_KEY", "traces": "off", "rate_limit": "off", "encrypted_with": "key",
	} {
		if !strings.Contains(entry[name], want) {
			t.Errorf("%s: got %q, want it to contain %q", name, entry[name], want)
		}
	}
}

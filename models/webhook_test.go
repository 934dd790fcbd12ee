package models_test

import (
	"strings"
	"testing"

	"agentmarket.space/server/models"
)

// TestMaskURL checks the documented form: at most 10 characters of the end of a URL.
func TestMaskURL(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"https://my-bot.com/callback":                    ".../callback",
		"https://my-agent.com/webhooks/agentmarket":      "...gentmarket",
		"https://my-agent.com/webhooks/agentmarket?t=ab": "...arket?t=ab",
		"https://a.b":                    "...//a.b",
		"https://my-bot.com/":            ".../",
		"https://my-bot.com/hooks/a/b":   ".../hooks/a/b",
		"https://example.com/ärger-über": "...ärger-über",
		"https://example.com/größerüber": "...größerüber",
		"/hook":                          ".../hook",
		"":                               "...",
	} {
		got := models.MaskURL(url)
		if shown := []rune(strings.TrimPrefix(got, "...")); len(shown) > 10 || !strings.HasSuffix(url, string(shown)) {
			t.Errorf("%s is masked as %s", url, got)
		}
		if got != want {
			t.Errorf("%s is masked as %s, want %s", url, got, want)
		}
	}
	if got := (&models.Webhook{URL: "https://my-bot.com/callback"}).MaskedURL(); got != ".../callback" {
		t.Errorf("MaskedURL is %s", got)
	}
}

func TestAttempt_LatencyMs(t *testing.T) {
	t.Parallel()
	if got := (&models.Attempt{LatencyUS: 1_500}).LatencyMs(); got != 1.5 {
		t.Errorf("1500 microseconds are %v milliseconds, want 1.5", got)
	}
}

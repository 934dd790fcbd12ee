package models_test

import (
	"strings"
	"testing"

	"agentmarket.space/server/models"
)

// TestMaskURL_short shows at most ten characters, whole ones, and no less of an
// address than there is.
func TestMaskURL_short(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"https://my-bot.com/":            ".../",
		"https://my-bot.com/hooks/a/b":   ".../hooks/a/b",
		"https://example.com/ärger-über": "...ärger-über",
		"https://example.com/größerüber": "...größerüber",
		"/hook":                          ".../hook",
		"":                               "...",
	} {
		got := models.MaskURL(url)
		if shown := []rune(strings.TrimPrefix(got, "...")); len(shown) > 10 || !strings.HasSuffix(url, string(shown)) {
			t.Errorf("%s is shown as %s", url, got)
		}
		if got != want {
			t.Errorf("%s is shown as %s, want %s", url, got, want)
		}
	}
	if got := (&models.Webhook{URL: "https://my-bot.com/callback"}).MaskedURL(); got != ".../callback" {
		t.Errorf("a webhook shows %s", got)
	}
}

func TestAttempt_LatencyMs(t *testing.T) {
	t.Parallel()
	if got := (&models.Attempt{LatencyUS: 1_500}).LatencyMs(); got != 1.5 {
		t.Errorf("1500 microseconds are %v milliseconds", got)
	}
}

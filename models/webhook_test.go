package models_test

import (
	"strings"
	"testing"

	"agentmarket.space/server/models"
)

// TestMaskURL shows the end of an address and nothing of where it is.
func TestMaskURL(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"https://my-bot.com/callback":           ".../callback",
		"https://agentmarket.space/agentmarket": "...gentmarket",
		"https://my-bot.com/hooks/a/b":          "...hooks/a/b",
		"https://my-bot.com/":                   "...my-bot.com/",
		"https://my-bot.com/hooks?key=secret":   "...key=secret",
		"https://example.com/ärger-über":        "...rger-über",
		"/hook":                                 ".../hook",
		"":                                      "...",
	} {
		got := models.MaskURL(url)
		if got != want {
			t.Errorf("%s is shown as %s, want %s", url, got, want)
		}
		if shown := []rune(strings.TrimPrefix(got, "...")); len(shown) > 10 {
			t.Errorf("%s shows %d characters of %s", got, len(shown), url)
		}
	}
	if got := (&models.Webhook{URL: "https://my-bot.com/callback"}).MaskedURL(); got != ".../callback" {
		t.Errorf("a webhook shows %s", got)
	}
	if got := (&models.Attempt{LatencyUS: 1_500}).LatencyMs(); got != 1.5 {
		t.Errorf("1500 microseconds are %v milliseconds", got)
	}
}

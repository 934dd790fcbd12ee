package models_test

import (
	"testing"

	"agentmarket.space/server/models"
)

func TestCanonicalID(t *testing.T) {
	t.Parallel()
	const id = "019d2f00-aaaa-7bbb-8ccc-0123456789ab"
	for text, want := range map[string]string{
		id:                                     id,
		"019D2F00-AAAA-7BBB-8CCC-0123456789AB": id,
		"019d2F00-aAaA-7bbB-8CcC-0123456789aB": id,
		"payout:019D2F00-AAAA-7BBB-8CCC-0123456789AB": "payout:" + id, // of a ledger entry
		"PAYOUT:019D2F00-AAAA-7BBB-8CCC-0123456789AB": "PAYOUT:" + id, // kinds are not UUIDs
		"019D2F00AAAA7BBB8CCC0123456789AB":            "019D2F00AAAA7BBB8CCC0123456789AB",
		"{019D2F00-AAAA-7BBB-8CCC-0123456789AB}":      "{019D2F00-AAAA-7BBB-8CCC-0123456789AB}",
		"x019D2F00-AAAA-7BBB-8CCC-0123456789AB":       "x019D2F00-AAAA-7BBB-8CCC-0123456789AB",
		id + "\n":                                     id + "\n",
		"019D2F00-AAAA-7BBB-8CCC-0123456789AG":        "019D2F00-AAAA-7BBB-8CCC-0123456789AG",
		"019D2F00-AAAA-7BBB-8CCCA0123456789AB":        "019D2F00-AAAA-7BBB-8CCCA0123456789AB",
		"ME":                                          "ME", "": "", "\x00": "\x00", "\xff": "\xff",
	} {
		if got := models.CanonicalID(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

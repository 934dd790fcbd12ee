package repo

import (
	"os"
	"slices"
	"strings"
	"testing"

	"agentmarket.space/server/models"
)

// TestStates holds the chart and the table of docs/states.md to the moves that
// the program allows, both ways.
func TestStates(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("docs/states.md")
	if err != nil {
		t.Fatal(err)
	}
	var charted, listed []string
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), ":")
		if from, to, ok := strings.Cut(line, " --> "); ok && from != "[*]" && to != "[*]" {
			charted = append(charted, from+" to "+to)
		}
		if cells := strings.Split(line, " | "); len(cells) > 2 && slices.Contains(models.Statuses(), models.Status(cells[1])) {
			if from := strings.TrimPrefix(cells[0], "| "); from != "–" {
				listed = append(listed, from+" to "+cells[1])
			}
		}
	}
	var allowed []string
	for _, from := range models.Statuses() {
		for _, to := range from.Transitions() {
			allowed = append(allowed, string(from)+" to "+string(to))
		}
	}
	slices.Sort(allowed)
	for name, moves := range map[string][]string{"chart": charted, "table": listed} {
		if slices.Sort(moves); !slices.Equal(moves, allowed) {
			t.Errorf("the %s has the moves %q, the program %q", name, moves, allowed)
		}
	}
}

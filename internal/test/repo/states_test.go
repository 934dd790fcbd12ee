package repo

import (
	"os"
	"slices"
	"strings"
	"testing"

	"agentmarket.space/server/models"
)

// TestStates compares the diagram and the table of docs/states.md with the allowed
// transitions.
func TestStates(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("docs/states.md")
	if err != nil {
		t.Fatal(err)
	}
	var inDiagram, inTable []string
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), ":")
		if from, to, ok := strings.Cut(line, " --> "); ok && from != "[*]" && to != "[*]" {
			inDiagram = append(inDiagram, from+" to "+to)
		}
		if cells := strings.Split(line, " | "); len(cells) > 2 && slices.Contains(models.Statuses(), models.Status(cells[1])) {
			if from := strings.TrimPrefix(cells[0], "| "); from != "–" {
				inTable = append(inTable, from+" to "+cells[1])
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
	for name, transitions := range map[string][]string{"diagram": inDiagram, "table": inTable} {
		if slices.Sort(transitions); !slices.Equal(transitions, allowed) {
			t.Errorf("the %s has the transitions %q, the program %q", name, transitions, allowed)
		}
	}
}

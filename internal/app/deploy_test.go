package app

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// TestDashboard checks the Grafana dashboard: panels do not overlap, each has a query,
// and every metric in a query exists.
func TestDashboard(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/grafana-dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Title, UID string
		Templating struct {
			List []struct{ Name, Type, Definition string }
		}
		Panels []struct {
			ID          int
			Type, Title string
			GridPos     struct{ X, Y, W, H int }
			Datasource  struct{ UID string }
			Targets     []struct{ RefID, Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil || dashboard.Title == "" || len(dashboard.Panels) == 0 {
		t.Fatalf("%+v, %v", dashboard, err)
	}
	registered := newTestServer(t, nil).metricNames()
	if first := dashboard.Templating.List[0]; first.Name != "datasource" || first.Type != "datasource" {
		t.Errorf("got first variable %+v", first)
	}
	for _, variable := range dashboard.Templating.List[1:] {
		checkExpression(t, registered, variable.Name, variable.Definition)
	}
	cells := map[[2]int]string{}
	ids := map[int]bool{}
	for _, panel := range dashboard.Panels {
		pos := panel.GridPos
		for x := pos.X; x < pos.X+pos.W; x++ {
			for y := pos.Y; y < pos.Y+pos.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" || x >= 24 {
					t.Errorf("panel %q overlaps panel %q", panel.Title, other)
				}
				cells[[2]int{x, y}] = panel.Title
			}
		}
		if ids[panel.ID] {
			t.Errorf("panel %q has a duplicate id", panel.Title)
		}
		ids[panel.ID] = true
		if (panel.Type == "row") != (len(panel.Targets) == 0) || panel.Type != "row" && panel.Datasource.UID != "${datasource}" {
			t.Errorf("panel %q of type %s has %d queries and datasource %q", panel.Title, panel.Type, len(panel.Targets), panel.Datasource.UID)
		}
		for _, target := range panel.Targets {
			checkExpression(t, registered, panel.Title, target.Expr)
		}
	}
}

// TestAlerts checks the alert rules: each has an action, every metric exists, and
// docs/operations.md documents each rule.
func TestAlerts(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../deploy/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For string
				Labels           struct{ Severity string }
				Annotations      struct{ Summary, Action string }
			}
		}
	}
	if err := yaml.UnmarshalWithOptions(text, &rules, yaml.Strict()); err != nil || len(rules.Groups) != 1 || len(rules.Groups[0].Rules) == 0 {
		t.Fatalf("%+v, %v", rules, err)
	}
	registered := append(newTestServer(t, nil).metricNames(), "up") // from Prometheus itself
	for _, rule := range rules.Groups[0].Rules {
		checkExpression(t, registered, rule.Alert, rule.Expr)
		if rule.For != "" && !regexp.MustCompile(`^\d+[mh]$`).MatchString(rule.For) {
			t.Errorf("%s: invalid duration %q", rule.Alert, rule.For)
		}
		if !slices.Contains([]string{"page", "ticket"}, rule.Labels.Severity) || rule.Annotations.Summary == "" || rule.Annotations.Action == "" {
			t.Errorf("%s: severity, summary or action is missing: %+v", rule.Alert, rule)
		}
		if !strings.Contains(string(doc), "`"+rule.Alert+"`") {
			t.Errorf("docs/operations.md does not document %s", rule.Alert)
		}
	}
}

// checkExpression checks that the metrics of an expression are registered and that its
// brackets are balanced.
func checkExpression(t *testing.T, registered []string, where, expr string) {
	t.Helper()
	names := regexp.MustCompile(`\b(?:agentmarket|go|process)_\w+|\bup\b`).FindAllString(expr, -1)
	if len(names) == 0 {
		t.Errorf("%s: no metric in %q", where, expr)
	}
	for _, name := range names {
		base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
		if !slices.Contains(registered, name) && !slices.Contains(registered, base) {
			t.Errorf("%s: unknown metric %s", where, name)
		}
	}
	for _, pair := range []string{"()", "{}", "[]"} {
		if strings.Count(expr, pair[:1]) != strings.Count(expr, pair[1:]) {
			t.Errorf("%s: unbalanced %s in %q", where, pair, expr)
		}
	}
}

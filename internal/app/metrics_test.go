package app

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"agentmarket.space/server/graph"
	"agentmarket.space/server/internal/executor"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// registered are the names of all metrics that a server has, without a value too.
func (b *bundle) registered() (names []string) {
	descriptions := make(chan *prometheus.Desc, 1000)
	b.metrics.registry.Describe(descriptions)
	close(descriptions)
	for description := range descriptions {
		names = append(names, regexp.MustCompile(`fqName: "([^"]+)"`).FindStringSubmatch(description.String())[1])
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// TestMetrics_documented: docs/operations.md lists the server's own metrics, all of
// them and no others.
func TestMetrics_documented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ = bytes.Cut(text, []byte("### Every metric"))
	text, _, _ = bytes.Cut(text, []byte("\n### "))
	var listed []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(agentmarket_\\w+)` ").FindAllSubmatch(text, -1) {
		listed = append(listed, string(row[1]))
	}
	slices.Sort(listed)
	registered := slices.DeleteFunc(open(t, nil).registered(), func(name string) bool { return !strings.HasPrefix(name, namespace+"_") })
	if !slices.Equal(listed, registered) {
		t.Errorf("listed are\n%q,\nregistered\n%q", listed, registered)
	}
}

// TestMetrics_lint holds names and helps to what Prometheus recommends.
func TestMetrics_lint(t *testing.T) {
	t.Parallel()
	b := open(t, nil)
	b.metrics.Refused(models.NotFound)
	b.metrics.ran(kindPrompt, market.Outcome{}, errors.New("no"), time.Second)
	b.register(t, "")
	families, err := b.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		t.Errorf("%s: %s", problem.Metric, problem.Text)
	}
}

// TestMetrics_bounded: what strangers send makes no new time series.
func TestMetrics_bounded(t *testing.T) {
	t.Parallel()
	b := open(t, nil)
	strange := func(word string) {
		b.ask(t, http.MethodPost, "/graphql", `{"query":"query `+word+` { `+word+`: tasks { `+word+`: totalCount } }","operationName":"`+word+`"}`)
		b.ask(t, http.MethodPost, "/graphql", `{"query":"{ `+word+` }"}`)
		b.ask(t, word, "/"+word, "", "X-API-Key", word)
		b.ask(t, word, "/api/"+word, "", "X-API-Key", word)
	}
	strange("FIRST")
	count := func() (n int) {
		families, err := b.metrics.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			n += len(family.GetMetric())
		}
		return n
	}
	before := count()
	strange("SECOND")
	if after := count(); after != before {
		t.Errorf("%d time series became %d", before, after)
	}
	if text := b.ask(t, http.MethodGet, "/metrics", "").body; strings.Contains(text, "FIRST") || strings.Contains(text, "SECOND") {
		t.Error("a stranger's word is in the metrics")
	}
}

// TestMetrics_roots: an operation is counted under the field that it begins with, in a
// fragment too, and one with several under none.
func TestMetrics_roots(t *testing.T) {
	t.Parallel()
	b := open(t, nil)
	for query, root := range map[string]graph.Root{
		"{ tasks { totalCount } }":                                                  {Kind: "query", Field: "tasks"},
		"{ a: agents { totalCount } b: agents { totalCount } }":                     {Kind: "query", Field: "agents"},
		"query { ... on Query { marketplace { version } } }":                        {Kind: "query", Field: "marketplace"},
		"query { ...F } fragment F on Query { viewer { agent { id } } __typename }": {Kind: "query", Field: "viewer"},
		"{ __typename }": {Kind: "query", Field: graph.Several},
		"{ __typename task(id: \\\"x\\\") { id } node(id: \\\"x\\\") { id } }": {Kind: "query", Field: graph.Several},
		"mutation { rotateApiKey { apiKey } }":                                 {Kind: "mutation", Field: "rotateApiKey"},
	} {
		series := `agentmarket_graphql_operation_duration_seconds_count{field="` + root.Field + `",kind="` + root.Kind + `"} `
		counted := func() string {
			_, rest, _ := strings.Cut(b.ask(t, http.MethodGet, "/metrics", "").body, series)
			n, _, _ := strings.Cut(rest, "\n")
			return n
		}
		before := counted()
		if got := b.ask(t, http.MethodPost, "/graphql", `{"query":"`+query+`"}`); got.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", query, got.StatusCode, got.body)
		}
		if after := counted(); before == "" || after == before {
			t.Errorf("%s: counted %q, before %q", query, after, before)
		}
	}
}

// TestFigures: figures are read again when they are old, not at each scrape, and are left
// out while the store cannot be read, which is tried no more often.
func TestFigures(t *testing.T) {
	t.Parallel()
	b := open(t, nil)
	now := time.Now()
	f := newFigures(b.db, func() time.Time { return now })
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(f)
	value := func(name string) float64 {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			if family.GetName() == name {
				return family.GetMetric()[0].GetGauge().GetValue()
			}
		}
		return -1
	}
	const issued, readable = "agentmarket_credits_issued", "agentmarket_figures_readable"
	wants := func(name string, want float64) {
		t.Helper()
		if got := value(name); got != want {
			t.Errorf("%s is %g, want %g", name, got, want)
		}
	}
	wants(issued, 0)
	b.register(t, "")
	now = now.Add(balanceEvery - 1)
	wants(issued, 0)
	now = now.Add(1)
	wants(issued, 100)
	wants("agentmarket_ledger_drift_credits", 0)
	wants(readable, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.within = ctx
	now = now.Add(balanceEvery)
	wants(readable, 0)
	wants(issued, -1)
	f.within = t.Context()
	now = now.Add(countEvery - 1)
	wants(readable, 0)
	now = now.Add(1)
	wants(readable, 1)
	wants(issued, 100)
}

// TestRuns: a run is counted by how the agent runs and by what came of it.
func TestRuns(t *testing.T) {
	t.Parallel()
	for want, run := range map[string]struct {
		outcome market.Outcome
		err     error
	}{
		"done":     {market.Outcome{Result: "R"}, nil},
		"promised": {market.Outcome(executor.Outcome{Promised: true}), nil},
		"too_slow": {market.Outcome{}, models.Errorf(models.ExecutionTimeout, "late")},
		"failed":   {market.Outcome{}, models.Errorf(models.ExecutionFailed, "no")},
	} {
		if got := outcomeOf(run.outcome, run.err); got != want {
			t.Errorf("%+v is %s, want %s", run, got, want)
		}
	}
	if got := outcomeOf(market.Outcome{}, nil); got != "failed" {
		t.Errorf("nothing is %s", got)
	}
}

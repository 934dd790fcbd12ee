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

// metricNames are the names of all metrics that a server has, without a value too.
func (b *testServer) metricNames() (names []string) {
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
	registered := slices.DeleteFunc(newTestServer(t, nil).metricNames(), func(name string) bool { return !strings.HasPrefix(name, namespace+"_") })
	if !slices.Equal(listed, registered) {
		t.Errorf("listed are\n%q,\nregistered\n%q", listed, registered)
	}
}

// TestMetrics_lint holds names and helps to what Prometheus recommends.
func TestMetrics_lint(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, nil)
	b.metrics.CountError(models.NotFound)
	b.metrics.observeExecution(kindPrompt, market.RunResult{}, errors.New("no"), time.Second)
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

// TestMetrics_boundedCardinality: what strangers send makes no new time series.
func TestMetrics_boundedCardinality(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, nil)
	strange := func(word string) {
		b.do(t, http.MethodPost, "/graphql", `{"query":"query `+word+` { `+word+`: tasks { `+word+`: totalCount } }","operationName":"`+word+`"}`)
		b.do(t, http.MethodPost, "/graphql", `{"query":"{ `+word+` }"}`)
		b.do(t, word, "/"+word, "", "X-API-Key", word)
		b.do(t, word, "/api/"+word, "", "X-API-Key", word)
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
	if text := b.do(t, http.MethodGet, "/metrics", "").body; strings.Contains(text, "FIRST") || strings.Contains(text, "SECOND") {
		t.Error("a stranger's word is in the metrics")
	}
}

// TestMetrics_operationField: an operation is counted under the field that it begins with, in a
// fragment too, and one with several under none.
func TestMetrics_operationField(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, nil)
	for query, root := range map[string]graph.RootField{
		"{ tasks { totalCount } }":                                                  {Kind: "query", Name: "tasks"},
		"{ a: agents { totalCount } b: agents { totalCount } }":                     {Kind: "query", Name: "agents"},
		"query { ... on Query { marketplace { version } } }":                        {Kind: "query", Name: "marketplace"},
		"query { ...F } fragment F on Query { viewer { agent { id } } __typename }": {Kind: "query", Name: "viewer"},
		"{ __typename }": {Kind: "query", Name: graph.MultipleFields},
		"{ __typename task(id: \\\"x\\\") { id } node(id: \\\"x\\\") { id } }": {Kind: "query", Name: graph.MultipleFields},
		"mutation { rotateApiKey { apiKey } }":                                 {Kind: "mutation", Name: "rotateApiKey"},
	} {
		series := `agentmarket_graphql_operation_duration_seconds_count{field="` + root.Name + `",kind="` + root.Kind + `"} `
		counted := func() string {
			_, rest, _ := strings.Cut(b.do(t, http.MethodGet, "/metrics", "").body, series)
			n, _, _ := strings.Cut(rest, "\n")
			return n
		}
		before := counted()
		if got := b.do(t, http.MethodPost, "/graphql", `{"query":"`+query+`"}`); got.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", query, got.StatusCode, got.body)
		}
		if after := counted(); before == "" || after == before {
			t.Errorf("%s: counted %q, before %q", query, after, before)
		}
	}
}

// TestStatsCollector: figures are read again when they are old, not at each scrape, and are left
// out while the store cannot be read, which is tried no more often.
func TestStatsCollector(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, nil)
	now := time.Now()
	f := newStatsCollector(b.db, func() time.Time { return now })
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
	now = now.Add(balancesMaxAge - 1)
	wants(issued, 0)
	now = now.Add(1)
	wants(issued, 100)
	wants("agentmarket_ledger_drift_credits", 0)
	wants(readable, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.baseContext = ctx
	now = now.Add(balancesMaxAge)
	wants(readable, 0)
	wants(issued, -1)
	f.baseContext = t.Context()
	now = now.Add(countsMaxAge - 1)
	wants(readable, 0)
	now = now.Add(1)
	wants(readable, 1)
	wants(issued, 100)
}

// TestExecutionOutcome: a run is counted by how the agent runs and by what came of it.
func TestExecutionOutcome(t *testing.T) {
	t.Parallel()
	for want, run := range map[string]struct {
		outcome market.RunResult
		err     error
	}{
		"done":     {market.RunResult{Result: "R"}, nil},
		"promised": {market.RunResult(executor.RunResult{Promised: true}), nil},
		"too_slow": {market.RunResult{}, models.Errorf(models.ExecutionTimeout, "late")},
		"failed":   {market.RunResult{}, models.Errorf(models.ExecutionFailed, "no")},
	} {
		if got := executionOutcome(run.outcome, run.err); got != want {
			t.Errorf("%+v is %s, want %s", run, got, want)
		}
	}
	if got := executionOutcome(market.RunResult{}, nil); got != "failed" {
		t.Errorf("nothing is %s", got)
	}
}

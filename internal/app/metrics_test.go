package app

import (
	"bytes"
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

	"agentmarket.space/server/graph/operation"
	"agentmarket.space/server/internal/executor"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// metricNames returns the names of all registered metrics, even those without a value.
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

// TestMetrics_documented checks that docs/operations.md lists exactly the metrics of the
// server.
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
		t.Errorf("documented\n%q,\nregistered\n%q", listed, registered)
	}
}

// TestMetrics_lint checks names and help texts with the Prometheus linter.
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

// TestMetrics_boundedCardinality checks that requests cannot create time series.
func TestMetrics_boundedCardinality(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, nil)
	sendUnknown := func(word string) {
		b.do(t, http.MethodPost, "/graphql", `{"query":"query `+word+` { `+word+`: tasks { `+word+`: totalCount } }","operationName":"`+word+`"}`)
		b.do(t, http.MethodPost, "/graphql", `{"query":"{ `+word+` }"}`)
		b.do(t, word, "/"+word, "", "X-API-Key", word)
		b.do(t, word, "/api/"+word, "", "X-API-Key", word)
	}
	sendUnknown("FIRST")
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
	sendUnknown("SECOND")
	if after := count(); after != before {
		t.Errorf("got %d time series, then %d", before, after)
	}
	if text := b.do(t, http.MethodGet, "/metrics", "").body; strings.Contains(text, "FIRST") || strings.Contains(text, "SECOND") {
		t.Error("a word from a request is in the metrics")
	}
}

// TestMetrics_operationField checks that an operation is counted under its root field,
// including in a fragment, and an operation with several root fields under no field.
func TestMetrics_operationField(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, nil)
	for query, root := range map[string]operation.RootField{
		"{ tasks { totalCount } }":                                                  {Kind: "query", Name: "tasks"},
		"{ a: agents { totalCount } b: agents { totalCount } }":                     {Kind: "query", Name: "agents"},
		"query { ... on Query { marketplace { version } } }":                        {Kind: "query", Name: "marketplace"},
		"query { ...F } fragment F on Query { viewer { agent { id } } __typename }": {Kind: "query", Name: "viewer"},
		"{ __typename }": {Kind: "query", Name: operation.MultipleFields},
		"{ __typename task(id: \\\"x\\\") { id } node(id: \\\"x\\\") { id } }": {Kind: "query", Name: operation.MultipleFields},
		"mutation { rotateApiKey { apiKey } }":                                 {Kind: "mutation", Name: "rotateApiKey"},
	} {
		series := `agentmarket_graphql_operation_duration_seconds_count{field="` + root.Name + `",kind="` + root.Kind + `"} `
		read := func() string {
			_, rest, _ := strings.Cut(b.do(t, http.MethodGet, "/metrics", "").body, series)
			n, _, _ := strings.Cut(rest, "\n")
			return n
		}
		before := read()
		if got := b.do(t, http.MethodPost, "/graphql", `{"query":"`+query+`"}`); got.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", query, got.StatusCode, got.body)
		}
		if after := read(); before == "" || after == before {
			t.Errorf("%s: got count %q, before %q", query, after, before)
		}
	}
}

// TestExecutionOutcome checks the outcome label of executions.
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
			t.Errorf("%+v: got %s, want %s", run, got, want)
		}
	}
	if got := executionOutcome(market.RunResult{}, nil); got != "failed" {
		t.Errorf("empty result: got %s", got)
	}
}

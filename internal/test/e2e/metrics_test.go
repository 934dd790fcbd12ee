package e2e_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

// TestMetrics runs some of every operation and scrapes /metrics. Each metric has a row with
// its expected value, or is 0 in a healthy server. Traces go to a collector; other servers
// do not receive trace headers.
func TestMetrics(t *testing.T) {
	t.Parallel()
	stranger := func(r *http.Request) {
		if parent := r.Header.Get("traceparent"); parent != "" {
			t.Errorf("%s receives the trace header %s", r.URL.Path, parent)
		}
	}
	var exported atomic.Int64
	collector := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { exported.Add(1) }))
	t.Cleanup(collector.Close)
	model := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stranger(r)
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprint(w, `{"id":"m","type":"message","role":"assistant","content":[{"type":"text","text":"Done."}],"stop_reason":"end_turn","usage":{"input_tokens":5,"output_tokens":7}}`)
	}))
	t.Cleanup(model.Close)
	url, env := testserver.ServeTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stranger(r)
		switch r.URL.Path {
		case "/run":
			_, _ = fmt.Fprint(w, `{"result":"done"}`)
		case "/gone":
			w.WriteHeader(http.StatusGone)
		case "/later":
			http.Error(w, "not now", http.StatusInternalServerError)
		}
	}))
	server := testserver.Start(t, append(append(env, storeSettings(t)...), "AGENTMARKET_RATE_LIMITS=on", "AGENTMARKET_WEBHOOK_RETRIES=1h",
		"OTEL_EXPORTER_OTLP_ENDPOINT="+collector.URL, "ANTHROPIC_API_KEY=k", "ANTHROPIC_BASE_URL="+model.URL)...)
	poster, worker := server.Register("Poster", nil), server.Register("Worker", map[string]any{
		"endpointUrl": url + "/run", "pricePerTask": 2, "webhookUrl": url + "/hook", "capabilities": []string{"work"},
	})
	poet := server.Register("Poet", map[string]any{"systemPrompt": "You are a poet.", "pricePerTask": 2, "webhookUrl": url + "/gone", "capabilities": []string{"work"}})
	server.Register("Late", map[string]any{"webhookUrl": url + "/later", "capabilities": []string{"work"}})
	must := func(key, document string, into any) {
		t.Helper()
		if err := server.Query(key, document, nil, into); err != nil {
			t.Fatal(err)
		}
	}
	socket := server.SubscribeWallet("graphql-transport-ws", poster.Key, false)
	var posted struct {
		PostTask struct{ Task struct{ ID string } }
	}
	post := `mutation { postTask(input: {title: "T", description: "D", budget: 10, requiredCapabilities: ["work"]}) { task { id } } }`
	must(poster.Key, post, &posted)
	must(poster.Key, post, &struct{}{})
	must(worker.Key, fmt.Sprintf(`mutation { acceptTask(input: {taskId: %q}) { task { id } } }`, posted.PostTask.Task.ID), &struct{}{})
	must(worker.Key, fmt.Sprintf(`mutation { completeTask(input: {taskId: %q, result: "R"}) { task { id } } }`, posted.PostTask.Task.ID), &struct{}{})
	for _, agent := range []testserver.Agent{worker, poet} {
		must(poster.Key, fmt.Sprintf(`mutation { execute(input: {agentId: %q, taskDescription: "D", budget: 5}) { task { result } } }`, agent.ID), &struct{}{})
	}
	var working struct {
		PostTask struct{ Task struct{ ID string } }
	}
	must(poster.Key, post, &working)
	must(worker.Key, fmt.Sprintf(`mutation { acceptTask(input: {taskId: %q}) { task { id } } }`, working.PostTask.Task.ID), &struct{}{})
	for range 2 {
		must("", `{ tasks { nodes { id } } }`, &struct{}{})
	}
	if err := server.Query("", `{ nothing }`, nil, &struct{}{}); err == nil {
		t.Error("an unknown field was accepted")
	}
	server.Do(http.MethodGet, "/api/tasks", strings.Repeat("0", 64), "")
	refused := func() bool {
		status, _ := server.Do(http.MethodGet, "/api/wallet", worker.Key, "")
		return status == http.StatusTooManyRequests
	}
	testutil.Eventually(t, "a RATE_LIMITED response", refused)
	if _, _, err := socket.ReadMessage(); err != nil { // the event of the poster's wallet
		t.Fatal(err)
	}
	tried := `{ viewer { webhook { deliveries { nodes { attempts { number } } } } } }`
	for _, agent := range []testserver.Agent{worker, poet} {
		testutil.Eventually(t, "the pending deliveries to be attempted", func() bool {
			status, text := server.Do(http.MethodPost, "/graphql", agent.Key, fmt.Sprintf(`{"query":%q}`, tried))
			return status == http.StatusOK && strings.Contains(text, `"number":1`)
		})
	}
	testutil.Eventually(t, "the attempts to be counted", func() bool {
		at := scrapeMetrics(t, server)
		return at.sum(`delivery_attempt_duration_seconds_count{outcome="delivered"}`) > 0 && at.sum(`delivery_attempt_duration_seconds_count{outcome="refused"}`) > 1
	})
	checkMetrics(t, scrapeMetrics(t, server))
	server.Stop()
	if exported.Load() == 0 {
		t.Error("no trace was sent")
	}
}

// checkMetrics checks every metric against its row.
func checkMetrics(t *testing.T, at metricSamples) {
	t.Helper()
	const some, none, either = 1, 0, -1
	rows := map[string]int{
		"build_info": some, "http_request_duration_seconds": some, "graphql_operation_duration_seconds": some, "graphql_errors_total": some,
		"rate_limited_total": some, "keys_refused_total": some, "answers_total": some, "connections": some, "subscriptions": some,
		"connections_cut_off_total": none, "slow_consumers_total": none,
		"event_cursor": some, "events_behind_seconds": either, "event_lag_seconds": some,
		"commit_changes": some, "commit_duration_seconds": some, "commits_failed_total": none, "changes_waiting": either,
		"database_connections_in_use": either, "database_connections_max": some,
		"jobs": some, "jobs_oldest_seconds": either, "delivery_attempt_duration_seconds": some, "deliveries_given_up_total": some,
		"deliveries_pending": some, "webhooks_suspended": some,
		"executions_running": none, "execution_duration_seconds": some, "model_tokens_total": some, "tasks_under_way": some,
		"credits_issued": some, "credits_fees": some, "credits_in_wallets": some, "credits_in_escrow": some, "ledger_drift_credits": none,
		"figures_readable": some,
	}
	for name := range at {
		name, _, _ = strings.Cut(name, "{")
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if short, ok := strings.CutSuffix(name, suffix); ok {
				name = short
			}
		}
		if _, known := rows[name]; !known {
			t.Errorf("metric %s has no row", name)
		}
	}
	for name, want := range rows {
		got := at.sum(name) + at.sum(name+"_count")
		if !at.has(name) && !at.has(name+"_count") || want == some && got <= 0 || want == none && got != 0 {
			t.Errorf("%s is %g", name, got)
		}
	}
	for series, want := range map[string]float64{
		`model_tokens_total`: 12, `credits_issued`: 400, `credits_fees`: 3, `credits_in_escrow`: 10, `credits_in_wallets{part="held"}`: 10,
		`execution_duration_seconds_count{kind="endpoint",outcome="done"}`: 1, `execution_duration_seconds_count{kind="prompt",outcome="done"}`: 1,
		`graphql_operation_duration_seconds_count{field="postTask",kind="mutation"}`: 3, `graphql_operation_duration_seconds_count{field="tasks",kind="query"}`: 2,
		`graphql_operation_duration_seconds_count{field="walletChanged",kind="subscription"}`: 1,
	} {
		if got := at[series]; got != want {
			t.Errorf("%s is %g, want %g", series, got, want)
		}
	}
}

// metricSamples are the server's own metrics by series, without the prefix.
type metricSamples map[string]float64

// sum adds up all series with a prefix.
func (s metricSamples) sum(of string) (sum float64) {
	for series, value := range s {
		if name, _, _ := strings.Cut(series, "{"); series == of || name == of {
			sum += value
		}
	}
	return sum
}

func (s metricSamples) has(name string) bool {
	for series := range s {
		if series == name || strings.HasPrefix(series, name+"{") {
			return true
		}
	}
	return false
}

// scrapeMetrics reads the metrics of a server.
func scrapeMetrics(t *testing.T, server *testserver.Server) metricSamples {
	t.Helper()
	status, text := server.Do(http.MethodGet, "/metrics", "", "")
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	at := metricSamples{}
	for line := range strings.Lines(text) {
		rest, ours := strings.CutPrefix(line, "agentmarket_")
		if !ours {
			continue
		}
		end := strings.LastIndexByte(rest, ' ')
		value, err := strconv.ParseFloat(strings.TrimSpace(rest[end:]), 64)
		if err != nil {
			t.Fatal(err)
		}
		at[rest[:end]] = value
	}
	return at
}

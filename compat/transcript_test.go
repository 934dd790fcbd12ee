package compat

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// transcriptRecorder records requests and responses. It replaces ids and keys by
// names, so that transcripts are the same in every run.
type transcriptRecorder struct {
	*bundle
	transcripts    map[string]*bytes.Buffer // by file name
	replacements   []string                 // pairs for strings.NewReplacer
	recordedRoutes map[string]bool          // by route name
}

// nameAgent sets the name of an agent in transcripts.
func (s *transcriptRecorder) nameAgent(name string, agent caller) caller {
	s.replacements = append(s.replacements, agent.id, "{"+name+"}", agent.key, "{key of "+name+"}")
	return agent
}

// record sends a request, records it under a file name and returns the data of the
// response.
func (s *transcriptRecorder) record(t *testing.T, file string, r request) map[string]any {
	t.Helper()
	if r.body != "" {
		r.headers = append([]string{"Content-Type", "application/json"}, r.headers...)
	}
	res := s.send(t, r)
	testutil.Equal(t, file+": status", res.StatusCode, http.StatusOK)
	s.assertMatchesOpenAPI(t, r, res)
	record := &bytes.Buffer{}
	fmt.Fprintf(record, "%s %s\n", r.method, r.path)
	if r.key != "" {
		fmt.Fprintf(record, "X-API-Key: %s\n", r.key)
	}
	for i := 0; i < len(r.headers); i += 2 {
		fmt.Fprintf(record, "%s: %s\n", r.headers[i], r.headers[i+1])
	}
	if r.body != "" {
		fmt.Fprintf(record, "\n%s\n", indentJSON(t, []byte(r.body)))
	}
	fmt.Fprintf(record, "\n%s\n", res.Status)
	for _, name := range []string{"Cache-Control", "Content-Type", "Idempotency-Replayed", "Link"} {
		if value := res.Header.Get(name); value != "" {
			fmt.Fprintf(record, "%s: %s\n", name, value)
		}
	}
	fmt.Fprintf(record, "\n%s\n", indentJSON(t, res.raw))
	s.transcripts[file] = record
	data, _ := res.body["data"].(map[string]any)
	return data
}

// assertMatchesOpenAPI validates a response against the OpenAPI document.
func (s *transcriptRecorder) assertMatchesOpenAPI(t *testing.T, r request, res apiResponse) {
	t.Helper()
	document := buildOpenAPI((&handler{}).routes(), Options{})
	for _, rt := range (&handler{}).routes() {
		path, _, _ := strings.Cut(r.path, "?")
		pattern := "^" + regexp.MustCompile(`\{id\}`).ReplaceAllString(rt.path, "[0-9a-f-]{36}") + "$"
		if rt.method != r.method || !regexp.MustCompile(pattern).MatchString(path) {
			continue
		}
		s.recordedRoutes[rt.name] = true
		schema := (*operationAt(document.Paths[rt.path], rt.method)).Responses["200"].Content[mediaJSON].Schema
		validateSchema(t, rt.name, document, schema, res.body)
		return
	}
	t.Errorf("%s %s is not in the table of routes", r.method, r.path)
}

func validateSchema(t *testing.T, what string, document *huma.OpenAPI, schema *huma.Schema, value any) {
	t.Helper()
	schema.PrecomputeMessages()
	result := &huma.ValidateResult{}
	huma.Validate(document.Components.Schemas, schema, huma.NewPathBuffer([]byte{}, 0), huma.ModeReadFromServer, value, result)
	for _, err := range result.Errors {
		t.Errorf("%s does not match the OpenAPI document: %v", what, err)
	}
}

func indentJSON(t *testing.T, raw []byte) string {
	t.Helper()
	var out bytes.Buffer
	testutil.Must(t, json.Indent(&out, raw, "", "  "))
	return out.String()
}

// TestTranscripts reproduces the balances of the documentation in one scenario: the
// poster goes from 100 to 75, the worker from 85 to 107, and a hire for 15 leaves 70.
func TestTranscripts(t *testing.T) {
	t.Parallel()
	s := &transcriptRecorder{bundle: newBundle(t), transcripts: map[string]*bytes.Buffer{}, recordedRoutes: map[string]bool{}}
	s.FakeRunner.ResultFunc = func(context.Context, *models.Agent, *models.Task) (string, error) {
		return "Packets flow like streams...", nil
	}
	haiku := s.nameAgent("haiku-bot", s.registerAgent(t, "HaikuBot", `,"system_prompt":"You write haiku","price_per_task":15`))
	poster := s.nameAgent("poster", s.registerAgent(t, "Poster", ""))
	hirer := s.nameAgent("hirer", s.registerAgent(t, "Hirer", ""))

	registered := s.record(t, "agents_register", request{method: "POST", path: "/api/agents/register", body: `{
		"name": "ResearchBot", "description": "I research topics thoroughly", "capabilities": ["research", "summarization"],
		"price_per_task": 15, "endpoint_url": "https://my-bot.com/execute", "system_prompt": "You are a research assistant",
		"webhook_url": "https://my-bot.com/webhooks", "owner_email": "me@example.com"}`})
	bot := s.nameAgent("research-bot", caller{id: stringField(t, registered, "id"), key: stringField(t, registered, "api_key")})
	s.replacements = append(s.replacements, stringField(t, registered, "webhook_secret"), "{webhook secret}")

	hire := func(by caller) request {
		return request{method: "POST", path: "/api/execute", key: by.key, body: fmt.Sprintf(
			`{"agent_id": %q, "task_description": "Write a haiku about distributed systems", "budget": 15}`, haiku.id)}
	}
	s.mustSend(t, hire(bot))   // 85 left
	s.mustSend(t, hire(hirer)) // 85 left

	s.record(t, "agents_list", request{method: "GET", path: "/api/agents?capability=research&limit=20"})
	s.record(t, "agents_get", request{method: "GET", path: "/api/agents/" + bot.id})
	s.record(t, "agents_me", request{method: "GET", path: "/api/agents/me", key: bot.key})

	posted := s.record(t, "tasks_post", request{method: "POST", path: "/api/tasks", key: poster.key, body: `{
		"title": "Summarize this research paper", "description": "Full text of the paper...", "budget": 25,
		"required_capabilities": ["research", "summarization"]}`})
	task := stringField(t, posted, "id")
	s.replacements = append(s.replacements, task, "{task}")
	s.record(t, "tasks_list", request{method: "GET", path: "/api/tasks?status=open&capability=research&limit=20"})
	s.record(t, "tasks_get", request{method: "GET", path: "/api/tasks/" + task})
	s.Clock.Advance(5 * time.Minute)
	s.record(t, "tasks_accept", request{method: "POST", path: "/api/tasks/" + task + "/accept", key: bot.key})
	s.record(t, "tasks_extend", request{method: "POST", path: "/api/tasks/" + task + "/extend", key: bot.key, body: `{"lease_minutes": 2880}`})
	s.record(t, "webhook_set", request{method: "PUT", path: "/api/agents/me/webhook", key: bot.key, body: `{
		"webhook_url": "https://my-agent.com/webhooks/agentmarket"}`})
	s.mustSend(t, request{method: "PUT", path: "/api/agents/me/webhook", key: bot.key, body: `{"webhook_url":"https://my-bot.com/callback"}`})
	s.record(t, "webhook_get", request{method: "GET", path: "/api/agents/me/webhook", key: bot.key})
	s.Clock.Advance(time.Hour)
	s.record(t, "tasks_complete", request{
		method: "POST", path: "/api/tasks/" + task + "/complete", key: bot.key, body: `{"result": "Here is the completed summary..."}`,
	})
	s.record(t, "wallet", request{method: "GET", path: "/api/wallet", key: bot.key})
	hired := s.record(t, "execute", hire(hirer))
	s.replacements = append(s.replacements, stringField(t, hired, "task_id"), "{hire}")

	s.record(t, "tasks_rate", request{method: "POST", path: "/api/tasks/" + task + "/rate", key: poster.key, body: `{"score": 5, "comment": "Thorough."}`})
	s.record(t, "webhook_remove", request{method: "DELETE", path: "/api/agents/me/webhook", key: bot.key})
	second := s.postTask(t, poster)
	s.replacements = append(s.replacements, second, "{task}")
	s.mustSend(t, request{method: "POST", path: "/api/tasks/" + second + "/accept", key: bot.key})
	s.record(t, "tasks_release", request{method: "POST", path: "/api/tasks/" + second + "/release", key: bot.key})
	s.record(t, "tasks_cancel", request{method: "POST", path: "/api/tasks/" + second + "/cancel", key: poster.key})

	s.VerifyLedger()
	for _, rt := range (&handler{}).routes() {
		if !s.recordedRoutes[rt.name] {
			t.Errorf("%s has no transcript", rt.name)
		}
	}
	names := strings.NewReplacer(s.replacements...)
	for file, record := range s.transcripts {
		assertGolden(t, filepath.Join("testdata", file+".txt"), names.Replace(record.String()))
	}
}

func assertGolden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		testutil.Must(t, os.WriteFile(path, []byte(got), 0o600))
	}
	want, err := os.ReadFile(path)
	testutil.Must(t, err)
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

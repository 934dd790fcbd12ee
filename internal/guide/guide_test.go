package guide_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"agentmarket.space/server/internal/guide"
)

// testFacts returns facts with a value for every field.
func testFacts() guide.Facts {
	return guide.Facts{
		URL: "https://market.example.com", Version: "v1.2.3", StartingCredits: 50, MinBudget: 5, MaxBudget: 900, FeePercent: 10,
		OpenFor: 36 * time.Hour, Lease: 90 * time.Minute, ExecuteTimeout: 45 * time.Second, AsyncDeadline: 2 * time.Hour,
		IdempotencyKeyTTL: 24 * time.Hour, EventRetention: 30 * 24 * time.Hour,
		WebhookRetries: []time.Duration{5 * time.Second, time.Minute, 1500 * time.Millisecond}, WebhookTimeout: 10 * time.Second,
		SignatureHeader: "X-AgentMarket-Signature", SchemaIsPublic: true, MaxBody: 1 << 20, MaxPage: 100,
		RequestLimit: &guide.RateLimit{Interval: 20 * time.Millisecond, Burst: 70}, RegistrationLimit: &guide.RateLimit{Interval: time.Minute, Burst: 6},
		Routes:        []guide.Route{{Method: "GET", Path: "/api/tasks", Summary: "List tasks."}, {Method: "POST", Path: "/api/tasks", Summary: "Post one.", RequiresKey: true}},
		Subscriptions: []guide.Subscription{{Name: "taskPosted", Summary: "Tasks as they are posted."}},
		Events:        []string{"task.posted", "task.assigned", "task.completed"},
		ErrorCodes:    []guide.ErrorCode{{Code: "CONFLICT", Status: 409, Advice: "Read it again."}},
	}
}

func serve(t *testing.T, handler http.Handler, err error, accept string) (*http.Response, string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w.Result(), w.Body.String()
}

// TestSkill checks that skill.md contains every fact, and leaves out what the server
// does not have.
func TestSkill(t *testing.T) {
	t.Parallel()
	handler, err := guide.Skill(testFacts())
	response, text := serve(t, handler, err, "")
	if got := response.Header.Get("Content-Type"); got != "text/markdown; charset=utf-8" {
		t.Errorf("got Content-Type %s", got)
	}
	for _, want := range []string{
		"---\nname: agentmarket\ndescription: ", "\nversion: \"v1.2.3\"\n---\n", "you start with 50 credits", "5 to 900 credits", "90 % of it",
		"expires after 36 hours unless", "`lease_until`, 90 min from now unless", "waits up to 45 s for the result", "the agent has 2 hours", "the same response for 1 day",
		"are kept for 30 days", "after 5 s, 1 min, 1.5s.", "within 10 s", "`X-AgentMarket-Signature` is `sha256=`", "wss://market.example.com/graphql",
		"50 per second, burst 70", "one per 1 min, burst 6", "| `GET /api/tasks` | no | List tasks. |", "| `POST /api/tasks` | yes | Post one. |",
		"- `taskPosted`: Tasks as they are posted.", "always get `task.posted`.", "`task.assigned`, `task.completed`.", "| `CONFLICT` | 409 | Read it again. |",
		"https://market.example.com/schema.graphqls",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("skill.md does not contain %q", want)
		}
	}
	minimal := testFacts()
	minimal.StartingCredits, minimal.EventRetention, minimal.SchemaIsPublic, minimal.RequestLimit, minimal.RegistrationLimit = 0, 0, false, nil, nil
	handler, err = guide.Skill(minimal)
	_, text = serve(t, handler, err, "")
	for _, unwanted := range []string{"you start with", "Events are kept", "schema.graphqls", "registrations per network", "system_prompt", "<no value>", "%!"} {
		if strings.Contains(text, unwanted) {
			t.Errorf("skill.md contains %q", unwanted)
		}
	}
	if !strings.Contains(text, "| requests | not limited |") {
		t.Error("skill.md does not say that requests are not limited")
	}
}

// TestLLMs checks the format of llmstxt.org: a title, a quoted summary, and only links
// below the headings.
func TestLLMs(t *testing.T) {
	t.Parallel()
	handler, err := guide.LLMs(testFacts())
	response, text := serve(t, handler, err, "")
	if got := response.Header.Get("Content-Type"); got != "text/plain; charset=utf-8" {
		t.Errorf("got Content-Type %s", got)
	}
	head, sections, _ := strings.Cut(text, "\n## ")
	if lines := strings.Split(head, "\n"); !strings.HasPrefix(lines[0], "# ") || !strings.HasPrefix(lines[2], "> ") {
		t.Errorf("the file starts with %q", head)
	}
	links := 0
	for i, line := range strings.Split("## "+sections, "\n") {
		switch {
		case strings.HasPrefix(line, "- [") && strings.Contains(line, "](https://market.example.com/"):
			links++
		case line != "" && !strings.HasPrefix(line, "## "):
			t.Errorf("unexpected line %d below the headings: %q", i+1, line)
		}
	}
	if links < 8 {
		t.Errorf("got %d links, want at least 8", links)
	}
}

// TestIndex checks the representations of the root.
func TestIndex(t *testing.T) {
	t.Parallel()
	handler, err := guide.Index(testFacts(), "plain text")
	for accept, want := range map[string]string{
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": "text/html; charset=utf-8",
		"application/json":                     "application/json",
		"application/json, text/plain, */*":    "application/json",
		"*/*":                                  "text/plain; charset=utf-8",
		"":                                     "text/plain; charset=utf-8",
		"*/*, text/html;q=0":                   "text/plain; charset=utf-8",
		"text/html;q=0.5, application/json":    "application/json",
		"text/html-like, application/json;q=0": "text/plain; charset=utf-8",
	} {
		response, text := serve(t, handler, err, accept)
		if got := response.Header.Get("Content-Type"); got != want {
			t.Errorf("Accept: %q: got %s, want %s", accept, got, want)
		}
		if vary := response.Header.Values("Vary"); strings.Join(vary, ", ") != "Accept, Accept-Encoding" {
			t.Errorf("got Vary %q", vary)
		}
		switch want {
		case "application/json":
			var links map[string]string
			if err := json.Unmarshal([]byte(text), &links); err != nil || links["live"] != "wss://market.example.com/graphql" || links["skill"] != "https://market.example.com/skill.md" {
				t.Errorf("%v in %s", err, text)
			}
		case "text/plain; charset=utf-8":
			if text != "plain text\n" {
				t.Errorf("got %q", text)
			}
		default:
			if !strings.Contains(text, "https://market.example.com/skill.md") || !strings.Contains(response.Header.Get("Content-Security-Policy"), "style-src 'sha256-") {
				t.Errorf("got %v\n%s", response.Header, text)
			}
		}
	}
}

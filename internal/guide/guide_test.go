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

// testFacts are those of a server with every setting of its own.
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

// TestSkill: every fact is told, and what does not hold on a server is not.
func TestSkill(t *testing.T) {
	t.Parallel()
	handler, err := guide.Skill(testFacts())
	response, text := serve(t, handler, err, "")
	if got := response.Header.Get("Content-Type"); got != "text/markdown; charset=utf-8" {
		t.Errorf("it is %s", got)
	}
	for _, want := range []string{
		"---\nname: agentmarket\ndescription: ", "\nversion: \"v1.2.3\"\n---\n", "you start with 50 credits", "5 to 900 credits", "90 % of it",
		"36 hours to be taken", "`lease_until`, 90 min unless", "result 45 s at most", "the agent has 2 hours", "the same for 1 day",
		"comes first, for 30 days", "after 5 s, 1 min, 1.5s.", "within 10 s", "`X-AgentMarket-Signature` is `sha256=`", "wss://market.example.com/graphql",
		"50 a second, 70 at once", "6 at once, one every 1 min", "| `GET /api/tasks` | no | List tasks. |", "| `POST /api/tasks` | yes | Post one. |",
		"- `taskPosted`: Tasks as they are posted.", "told of `task.posted` and", "`task.assigned`, `task.completed`.", "| `CONFLICT` | 409 | Read it again. |",
		"https://market.example.com/schema.graphqls",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	bare := testFacts()
	bare.StartingCredits, bare.EventRetention, bare.SchemaIsPublic, bare.RequestLimit, bare.RegistrationLimit = 0, 0, false, nil, nil
	handler, err = guide.Skill(bare)
	_, text = serve(t, handler, err, "")
	for _, not := range []string{"you start with", "comes first,", "schema.graphqls", "at once, one every", "system_prompt", "<no value>", "%!"} {
		if strings.Contains(text, not) {
			t.Errorf("it says %q", not)
		}
	}
	if !strings.Contains(text, "| requests | not limited |") {
		t.Error("it does not say that requests are not limited")
	}
}

// TestLLMs: the file has the form of llmstxt.org: a title, a summary in a quote, and
// under each heading nothing but links.
func TestLLMs(t *testing.T) {
	t.Parallel()
	handler, err := guide.LLMs(testFacts())
	response, text := serve(t, handler, err, "")
	if got := response.Header.Get("Content-Type"); got != "text/plain; charset=utf-8" {
		t.Errorf("it is %s", got)
	}
	head, sections, _ := strings.Cut(text, "\n## ")
	if lines := strings.Split(head, "\n"); !strings.HasPrefix(lines[0], "# ") || !strings.HasPrefix(lines[2], "> ") {
		t.Errorf("it begins with %q", head)
	}
	links := 0
	for i, line := range strings.Split("## "+sections, "\n") {
		switch {
		case strings.HasPrefix(line, "- [") && strings.Contains(line, "](https://market.example.com/"):
			links++
		case line != "" && !strings.HasPrefix(line, "## "):
			t.Errorf("line %d under the headings is %q", i+1, line)
		}
	}
	if links < 8 {
		t.Errorf("it has %d links", links)
	}
}

// TestIndex: everybody is told where everything is, in what they can read.
func TestIndex(t *testing.T) {
	t.Parallel()
	handler, err := guide.Index(testFacts(), "the lines")
	for accept, want := range map[string]string{
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": "text/html; charset=utf-8",
		"application/json": "application/json",
		"*/*":              "text/plain; charset=utf-8",
		"":                 "text/plain; charset=utf-8",
	} {
		response, text := serve(t, handler, err, accept)
		if got := response.Header.Get("Content-Type"); got != want {
			t.Errorf("who accepts %q gets %s, want %s", accept, got, want)
		}
		if vary := response.Header.Values("Vary"); strings.Join(vary, ", ") != "Accept, Accept-Encoding" {
			t.Errorf("it varies by %q", vary)
		}
		switch want {
		case "application/json":
			var places map[string]string
			if err := json.Unmarshal([]byte(text), &places); err != nil || places["live"] != "wss://market.example.com/graphql" || places["skill"] != "https://market.example.com/skill.md" {
				t.Errorf("%v in %s", err, text)
			}
		case "text/plain; charset=utf-8":
			if text != "the lines\n" {
				t.Errorf("the lines are %q", text)
			}
		default:
			if !strings.Contains(text, "https://market.example.com/skill.md") || !strings.Contains(response.Header.Get("Content-Security-Policy"), "style-src 'sha256-") {
				t.Errorf("the page is %v\n%s", response.Header, text)
			}
		}
	}
}

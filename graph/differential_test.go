package graph

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestAnswers_property walks the market at random and asks, whatever happens,
// what the schema allows: no answer differs from that of a server that keeps
// none.
func TestAnswers_property(t *testing.T) {
	t.Parallel()
	var recalled, differed atomic.Int64
	p := newPair(t) // the walk goes on and on in one market
	rapid.Check(t, func(r *rapid.T) {
		p.asked = nil
		r.Repeat(map[string]func(*rapid.T){
			"post": p.post,
			"move": p.move,
			"hire": p.hire,
			"jump": func(r *rapid.T) {
				p.Clock.Advance(time.Duration(rapid.IntRange(-5, 40).Draw(r, "minutes")) * time.Minute)
			},
			"ask": func(r *rapid.T) {
				p.asked = append(p.asked, request(r, p.ids))
				p.compare(r, p.asked[len(p.asked)-1], &recalled, &differed)
			},
			"ask again": func(r *rapid.T) {
				if len(p.asked) > 0 {
					p.compare(r, rapid.SampledFrom(p.asked).Draw(r, "earlier"), &recalled, &differed)
				}
			},
		})
	})
	if recalled.Load() < 100 || differed.Load() < 10 {
		t.Errorf("%d answers were from memory, %d differed by caller: too few to prove anything", recalled.Load(), differed.Load())
	}
}

// pair is two servers of one market, of which only one keeps answers.
type pair struct {
	*bundle
	keeping, plain http.Handler
	callers        []caller
	tasks, ids     []string
	asked          [][]byte
}

func newPair(t *testing.T) *pair {
	t.Helper()
	b := open(t)
	b.Settings.StartingCredits = 10_000
	plain, err := NewServer(b.resolver, ServerOptions{Introspection: true, Keys: b.Keys, Logger: b.Logger})
	must(t, err)
	p := &pair{bundle: b, keeping: b.admit(b.server), plain: b.admit(plain)}
	p.callers = []caller{{}}
	for range 3 {
		c := b.register(t, `capabilities: ["x"], endpointUrl: "https://agent.example.com/"`)
		p.callers, p.ids = append(p.callers, c), append(p.ids, c.id)
	}
	return p
}

// do sends a body to a server.
func (p *pair) do(h http.Handler, c caller, body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/graphql", bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if c.key != "" {
		r.Header.Set("X-Api-Key", c.key)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// verb runs a mutation, which may be refused, on the keeping server.
func (p *pair) verb(r *rapid.T, mutation string) string {
	c := rapid.SampledFrom(p.callers[1:]).Draw(r, "caller")
	body, err := json.Marshal(map[string]string{"query": mutation})
	if err != nil {
		r.Fatal(err)
	}
	return p.do(p.keeping, c, body).Body.String()
}

func (p *pair) post(r *rapid.T) {
	p.note(p.verb(r, fmt.Sprintf(`mutation { out: postTask(input: {title: "Task", description: "D", budget: %d, requiredCapabilities: ["x"], openForMinutes: %d, leaseMinutes: 10}) { task { id } } }`,
		rapid.IntRange(2, 9).Draw(r, "budget"), rapid.IntRange(1, 60).Draw(r, "minutes"))))
}

func (p *pair) hire(r *rapid.T) {
	p.note(p.verb(r, fmt.Sprintf(`mutation { out: execute(input: {agentId: %q, taskDescription: "D", budget: 10}) { task { id } } }`,
		rapid.SampledFrom(p.ids[:3]).Draw(r, "agent"))))
}

// note keeps the id of a task that was made.
func (p *pair) note(body string) {
	var made struct {
		Data struct {
			Out struct{ Task struct{ ID string } }
		}
	}
	if json.Unmarshal([]byte(body), &made) == nil && made.Data.Out.Task.ID != "" {
		p.tasks, p.ids = append(p.tasks, made.Data.Out.Task.ID), append(p.ids, made.Data.Out.Task.ID)
	}
}

func (p *pair) move(r *rapid.T) {
	if len(p.tasks) == 0 {
		return
	}
	verb := rapid.SampledFrom([]string{"acceptTask", "completeTask", "cancelTask", "releaseTask", "rateTask"}).Draw(r, "verb")
	members := map[string]string{"completeTask": `, result: "done"`, "rateTask": ", score: 4"}[verb]
	p.verb(r, fmt.Sprintf(`mutation { %s(input: {taskId: %q%s}) { task { id } } }`, verb, rapid.SampledFrom(p.tasks).Draw(r, "task"), members))
}

// compare asks both servers the same, twice, for a stranger and for an agent.
func (p *pair) compare(r *rapid.T, body []byte, recalled, differed *atomic.Int64) {
	var first string
	for i, c := range []caller{{}, rapid.SampledFrom(p.callers[1:]).Draw(r, "who")} {
		want := p.do(p.plain, c, body)
		for range 2 {
			before := p.reads.Load()
			got := p.do(p.keeping, c, body)
			if got.Code != want.Code || !sameAnswer(got.Body.Bytes(), want.Body.Bytes()) || !slices.Equal(got.Header()["Content-Type"], want.Header()["Content-Type"]) {
				r.Fatalf("%s\nis answered %d %s\nand without memory %d %s", body, got.Code, got.Body, want.Code, want.Body)
			}
			if p.reads.Load() == before && !strings.Contains(got.Body.String(), `"errors"`) {
				recalled.Add(1)
			}
		}
		if i == 0 {
			first = want.Body.String()
		} else if want.Body.String() != first {
			differed.Add(1)
		}
	}
}

// sameAnswer compares bodies; errors are in the order in which fields failed,
// which is not said.
func sameAnswer(a, b []byte) bool {
	return bytes.Equal(a, b) || bytes.Contains(a, []byte(`"errors"`)) && slices.Equal(sorted(a), sorted(b))
}

func sorted(body []byte) []string {
	var parts struct {
		Data   json.RawMessage
		Errors []json.RawMessage
	}
	if json.Unmarshal(body, &parts) != nil {
		return []string{string(body)}
	}
	out := []string{string(parts.Data)}
	for _, e := range parts.Errors {
		out = append(out, string(e))
	}
	slices.Sort(out[1:])
	return out
}

// TestAnswers_fresh: while others write, no answer is older than what was
// acknowledged before it was asked for.
func TestAnswers_fresh(t *testing.T) {
	t.Parallel()
	const posts, budget = 150, 2
	b := open(t)
	b.Settings.StartingCredits = 1000
	poster := b.register(t, "")
	p := &pair{bundle: b, keeping: b.admit(b.server)}
	body := []byte(`{"query":"{ tasks { totalCount } viewer { wallet { balance } } }"}`)
	var acknowledged atomic.Int64
	var readers sync.WaitGroup
	for _, c := range []caller{poster, poster, poster, {}, {}} {
		readers.Go(func() {
			for seen := int64(0); seen < posts; {
				seen = acknowledged.Load()
				var got struct {
					Data struct {
						Tasks  struct{ TotalCount int64 }
						Viewer *struct{ Wallet struct{ Balance int64 } }
					}
				}
				raw := p.do(p.keeping, c, body).Body.Bytes()
				if err := json.Unmarshal(raw, &got); err != nil || got.Data.Tasks.TotalCount < seen ||
					(got.Data.Viewer != nil) != (c.key != "") || got.Data.Viewer != nil && got.Data.Viewer.Wallet.Balance > 1000-seen*budget {
					t.Errorf("after %d posts: %s, %v", seen, raw, err)
					return
				}
			}
		})
	}
	for range posts {
		b.post(t, poster, fmt.Sprintf("budget: %d", budget))
		acknowledged.Add(1)
	}
	readers.Wait()
}

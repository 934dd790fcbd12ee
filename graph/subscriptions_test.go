package graph

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestTaskPosted_filters checks which tasks each subscriber gets. All get the last one.
func TestTaskPosted_filters(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	poster, worker := b.registerAgent(t, ""), b.registerAgent(t, `capabilities: ["a"]`)
	rows := map[string]struct {
		caller    caller
		arguments string
		want      string
	}{
		"anonymous":                     {caller{}, "", "a b none own last"},
		"own capabilities by default":   {worker, "", "a last"},
		"own capabilities, null":        {worker, "(capabilities: null)", "a last"},
		"every task, one's own too":     {worker, "(capabilities: [])", "a b none own last"},
		"a capability, no own tasks":    {worker, `(capabilities: ["a"])`, "a last"},
		"every task above a budget":     {worker, "(capabilities: [], minBudget: 7)", "b last"},
		"one capability":                {worker, `(capabilities: [" B "])`, "b last"},
		"one of two capabilities":       {caller{}, `(capabilities: ["a", "b"])`, "a b own last"},
		"many capabilities":             {caller{}, fmt.Sprintf("(capabilities: %q)", append(unusedCapabilities(2*maxTopics), "a")), "a own last"},
		"minimum budget":                {caller{}, "(minBudget: 7)", "b last"},
		"capability and minimum budget": {caller{}, `(capabilities: ["a"], minBudget: 6)`, "last"},
	}
	streams := map[string]*clientSubscription{}
	for name, row := range rows {
		for door, subscribe := range subscribeFuncs() {
			streams[name+", "+door] = subscribe(b, t, row.caller, "subscription { taskPosted"+row.arguments+" { cursor occurredAt task { title } } }")
		}
	}
	b.waitForSubscriptions(t, len(streams))
	b.postTaskTitled(t, poster, "a", `budget: 5, requiredCapabilities: ["a"]`)
	b.postTaskTitled(t, poster, "b", `budget: 7, requiredCapabilities: ["b"]`)
	b.postTaskTitled(t, poster, "none", `budget: 5`)
	b.postTaskTitled(t, worker, "own", `budget: 5, requiredCapabilities: ["a"]`)
	b.postTaskTitled(t, poster, "last", `budget: 8, requiredCapabilities: ["a", "b"]`)
	for name, s := range streams {
		row := rows[name[:strings.LastIndex(name, ", ")]]
		got := s.nextN(len(strings.Fields(row.want)))
		if got := strings.Join(s.values(got, "taskPosted.task.title"), " "); got != row.want {
			t.Errorf("%s: got %s, want %s", name, got, row.want)
		}
		got[0].assertFields(t, "taskPosted.occurredAt", "2026-03-13T12:00:00Z")
	}
}

// unusedCapabilities returns n capabilities that no agent has.
func unusedCapabilities(n int) []string {
	words := make([]string, n)
	for i := range words {
		words[i] = fmt.Sprint("unknown", i)
	}
	return words
}

// TestTaskPosted_topics checks the limit on the topics of a subscription.
func TestTaskPosted_topics(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	for n, want := range map[int]int{0: 1, 1: 1, maxTopics: maxTopics, maxTopics + 1: 1, 100: 1} {
		interest, err := b.resolver.taskPostedInterest(t.Context(), map[string]any{
			"capabilities": unusedCapabilities(n), "minBudget": (*models.Credits)(nil), "after": (*string)(nil),
		})
		testutil.Must(t, err)
		if got := len(interest.Topics); got != want {
			t.Errorf("%d capabilities: %d topics, want %d", n, got, want)
		}
	}
}

// TestSubscriptions_events checks that the poster and the worker of a task get its events
// and those of their wallets, and a stranger gets neither.
func TestSubscriptions_events(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	c := b.registerParticipants(t)
	b.triggerEveryEvent(t, c)
	own := b.postTask(t, c.stranger, "budget: 3")
	for door, subscribe := range subscribeFuncs() {
		t.Run(door, func(t *testing.T) {
			t.Parallel()
			expect := func(c caller, field, path string, want ...string) []gqlResponse {
				t.Helper()
				s := subscribe(b, t, c, "subscription { "+field+" }")
				got := s.nextN(len(want))
				if got := s.values(got, path); !slices.Equal(got, want) {
					t.Errorf("got %v, want %v", got, want)
				}
				return got
			}
			const updated, change = `taskUpdated(after: "0") { cursor occurredAt change task { id status result worker { id } } }`, "taskUpdated.change"
			expect(c.poster, updated, change, "POSTED", "ACCEPTED", "RELEASED", "ACCEPTED", "COMPLETED", "RATED", "POSTED", "CANCELLED", "POSTED", "EXPIRED", "ACCEPTED", "FAILED")
			worked := expect(c.worker, updated, change, "ACCEPTED", "RELEASED", "ACCEPTED", "COMPLETED", "RATED", "ACCEPTED", "FAILED")
			worked[3].assertFields(t, "taskUpdated.task.result", "the result", "taskUpdated.task.status", "COMPLETED", "taskUpdated.task.worker.id", c.worker.id)
			// The first event of a stranger is about its own task.
			expect(c.stranger, updated, "taskUpdated.task.id", own)
			done := worked[3].get(t, "taskUpdated.task.id")
			expect(c.poster, fmt.Sprintf(`taskUpdated(taskId: %q, after: "0") { change }`, done), change, "POSTED", "ACCEPTED", "RELEASED", "ACCEPTED", "COMPLETED", "RATED")
			expect(c.stranger, fmt.Sprintf(`taskUpdated(taskId: %q, after: "0") { change }`, own), change, "POSTED")

			const wallet, amount = `walletChanged(after: "0") { cursor entry { kind amount balanceAfter task { id } } wallet { balance heldBalance } }`, "walletChanged.entry.amount"
			expect(c.poster, wallet, amount, "100", "-5", "-5", "5", "-5", "5", "-2", "2")
			expect(c.worker, wallet, amount, "100", "4")
			got := expect(c.stranger, wallet, amount, "100", "-3")
			got[1].assertFields(t, "walletChanged.wallet", `{"balance":97,"heldBalance":3}`, "walletChanged.entry.balanceAfter", "97", "walletChanged.entry.task.id", own)

			// A stranger gets the task, but not its result.
			posted := expect(caller{}, `taskPosted(after: "0") { task { id status result } }`, "taskPosted.task.status", "COMPLETED", "CANCELLED", "EXPIRED", "OPEN")
			posted[0].assertFields(t, "taskPosted.task.result", "null")
		})
	}
}

// TestSubscriptions_resume resumes each stream after each of its events, during new ones,
// and checks that no event is missing or repeated.
func TestSubscriptions_resume(t *testing.T) {
	t.Parallel()
	for door, subscribe := range subscribeFuncs() {
		for field, subscriber := range map[string]func(participants) caller{
			"taskPosted":    func(participants) caller { return caller{} },
			"taskUpdated":   func(c participants) caller { return c.poster },
			"walletChanged": func(c participants) caller { return c.poster },
		} {
			t.Run(field+" over "+door, func(t *testing.T) {
				t.Parallel()
				b := newBundle(t)
				c := b.registerParticipants(t)
				b.triggerEveryEvent(t, c)
				from := func(cursor string) *clientSubscription {
					return subscribe(b, t, subscriber(c), fmt.Sprintf("subscription { %s(after: %q) { cursor } }", field, cursor))
				}
				const before, later = 3, 4
				cursors := []string{"0"}
				for range before { // one event per connection
					s := from(cursors[len(cursors)-1])
					cursors = append(cursors, s.values(s.nextN(1), field+".cursor")...)
					s.unsubscribe()
				}
				s := from("0")
				for range later { // during the replay
					b.postTask(t, c.poster, "budget: 2")
				}
				total := map[string]int{"taskPosted": 3 + later, "taskUpdated": 12 + later, "walletChanged": 8 + later}[field]
				whole := s.values(s.nextN(total), field+".cursor")
				if !slices.Equal(whole[:before], cursors[1:]) {
					t.Errorf("one at a time: %v, in one stream: %v", cursors[1:], whole[:before])
				}
				for i, cursor := range whole[:total-1] {
					s := from(cursor)
					if got := s.values(s.nextN(total-1-i), field+".cursor"); !slices.Equal(got, whole[i+1:]) {
						t.Errorf("after %s: got %v, want %v", cursor, got, whole[i+1:])
					}
					s.unsubscribe()
				}
			})
		}
	}
}

// TestSubscriptions_resumeAfterManyEvents resumes after more events than one read returns,
// all of them filtered out.
func TestSubscriptions_resumeAfterManyEvents(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	poster := b.registerAgent(t, "")
	b.appendTaskPosted(t, b.postTask(t, poster, "budget: 2"), poster.id, 1000)
	const subscription = `subscription { taskPosted(after: "0", minBudget: 7) { task { budget } } }`
	var all []*clientSubscription
	for _, subscribe := range subscribeFuncs() {
		all = append(all, subscribe(b, t, caller{}, subscription))
	}
	for _, budget := range []string{"7", "8"} {
		b.postTask(t, poster, "budget: "+budget)
		for _, s := range all {
			s.nextN(1)[0].assertFields(t, "taskPosted.task.budget", budget)
		}
	}
}

// TestSubscriptions_errors checks the code of subscriptions that cannot start.
func TestSubscriptions_errors(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	agent := b.registerAgent(t, "")
	for door, subscribe := range subscribeFuncs() {
		for name, row := range map[string]struct {
			caller caller
			field  string
			code   models.Code
		}{
			"updates without a key":  {caller{}, "taskUpdated { cursor }", models.Unauthenticated},
			"a wallet without a key": {caller{}, "walletChanged { cursor }", models.Unauthenticated},
			"an invalid cursor":      {agent, `taskUpdated(after: "soon") { cursor }`, models.InvalidInput},
			"a negative cursor":      {agent, `walletChanged(after: "-1") { cursor }`, models.InvalidInput},
			"a future cursor":        {caller{}, `taskPosted(after: "1000000") { cursor }`, models.InvalidInput},
			"an empty capability":    {caller{}, `taskPosted(capabilities: [" "]) { cursor }`, models.InvalidInput},
			"a boolean budget":       {caller{}, `taskPosted(minBudget: true) { cursor }`, models.InvalidInput},
		} {
			t.Run(name+" over "+door, func(t *testing.T) {
				t.Parallel()
				if got, code := subscribe(b, t, row.caller, "subscription { "+row.field+" }").drain(); len(got) > 0 || code != string(row.code) {
					t.Errorf("got %d events, then %q, want %s", len(got), code, row.code)
				}
			})
		}
	}
}

// TestSlowConsumer checks that a client that does not read gets SLOW_CONSUMER after the
// buffered events, and can resume.
func TestSlowConsumer(t *testing.T) {
	t.Parallel()
	for door, subscribe := range subscribeFuncs() {
		t.Run(door, func(t *testing.T) {
			t.Parallel()
			b := newBundle(t)
			poster := b.registerAgent(t, "")
			long := b.mustQuery(t, poster, fmt.Sprintf(`mutation { postTask(input: {title: "T", description: %q, budget: 2}) { task { id } } }`, strings.Repeat("long ", 2000))).
				get(t, "postTask.task.id")
			b.waitForEventLog(t)
			s := subscribe(b, t, caller{}, "subscription { taskPosted { cursor task { description } } }")
			b.waitForSubscriptions(t, 1)
			var first, last int64
			const all = 600 // more than the queues and buffers hold
			testutil.Must(t, b.DB.Write(t.Context(), func(tx *database.Tx) error {
				for i := range all {
					event := models.Event{Kind: models.TaskPosted, TaskID: &long, PosterID: &poster.id}
					if err := b.Log.Append(tx, &event); err != nil {
						return err
					}
					if last = event.ID; i == 0 {
						first = last
					}
				}
				return nil
			}))
			testutil.Eventually(t, "the events to be published", func() bool { return b.Log.Head() == last })
			got, code := s.drain()
			if code != string(models.SlowConsumer) || len(got) == 0 || len(got) >= all {
				t.Fatalf("%d events, then %q, want some and %s", len(got), code, models.SlowConsumer)
			}
			cursors := s.values(got, "taskPosted.cursor")
			again := subscribe(b, t, caller{}, fmt.Sprintf("subscription { taskPosted(after: %q) { cursor } }", cursors[len(cursors)-1]))
			cursors = append(cursors, again.values(again.nextN(all-len(cursors)), "taskPosted.cursor")...)
			for i, cursor := range cursors {
				if want := events.Cursor(first + int64(i)); cursor != want {
					t.Fatalf("event %d has cursor %s, want %s", i, cursor, want)
				}
			}
		})
	}
}

// TestRotateAPIKey_closesConnections checks that the sockets and streams of a replaced key
// are closed.
func TestRotateAPIKey_closesConnections(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	agent, other := b.registerAgent(t, ""), b.registerAgent(t, "")
	conn, other2 := b.dialWebSocket(t, agent, nil), b.subscribeWebSocket(t, other, "subscription { walletChanged { cursor } }")
	s := b.subscribeSSE(t, agent, "subscription { walletChanged { cursor } }")
	b.waitForSubscriptions(t, 2)
	b.mustQuery(t, agent, "mutation { rotateApiKey { apiKey } }")
	if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, 4401) {
		t.Errorf("the socket ended with %v, want 4401", err)
	}
	if got, code := s.drain(); len(got) > 0 || code != string(models.Unauthenticated) {
		t.Errorf("got %d events, then %q", len(got), code)
	}
	b.waitForSubscriptions(t, 1)
	b.postTask(t, other, "budget: 2")
	other2.nextN(1)
	other2.unsubscribe()
	testutil.Eventually(t, "all connections to end", func() bool { return b.server.Connections() == 0 && b.Log.Subscribers() == 0 })
}

// TestInterests_everySubscription checks that every subscription of the schema has an interest.
func TestInterests_everySubscription(t *testing.T) {
	t.Parallel()
	interests := (&Resolver{}).interests()
	for _, field := range executableSchema().Schema().Subscription.Fields {
		if interests[field.Name] == nil {
			t.Errorf("%s has no interest", field.Name)
		}
		delete(interests, field.Name)
	}
	for name := range interests {
		t.Errorf("%s is not a subscription", name)
	}
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"agentmarket.space/server/bench/load"
)

// target is a server and the requests that it understands.
type target struct {
	run commandFunc
	// fill registers agents and posts tasks, or makes up their IDs.
	fill         func(ctx context.Context, m *market, tasks int) error
	posts        requestsFunc
	subscription func(m *market, a audience) load.Subscription
}

// market is a running server with agents and tasks, and the requests to it. The baseline
// gets the same requests.
type market struct {
	*server
	target target
	stamps load.StampCounter
	keys   []string // API keys of agents with credits
	ids    []string // IDs of open tasks
}

const (
	agents    = 32
	openTasks = 500

	startingCredits = 1_000_000_000

	taskFields = `id title description budget status requiredCapabilities createdAt poster { id }`
)

// product runs the marketplace itself with durable commits. Only rate limits are off, and
// its agents have many credits.
func product(binary string) commandFunc {
	return func(ctx context.Context, addr, dir string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, binary)
		cmd.Env = []string{
			"PATH=" + os.Getenv("PATH"),
			"HOME=" + dir,
			"AGENTMARKET_ADDR=" + addr,
			"AGENTMARKET_DATABASE=" + filepath.Join(dir, "agentmarket.db"),
			"AGENTMARKET_RATE_LIMITS=off",
			"AGENTMARKET_STARTING_CREDITS=" + strconv.Itoa(startingCredits),
		}
		return cmd
	}
}

// baseline runs bench/baseline with the given flags.
func baseline(binary string, flags ...string) commandFunc {
	return func(ctx context.Context, addr, _ string) *exec.Cmd {
		return exec.CommandContext(ctx, binary, append([]string{"-addr", addr}, flags...)...)
	}
}

// assignRandomIDs makes up keys and IDs for a baseline that checks and looks up nothing.
func assignRandomIDs(_ context.Context, m *market, tasks int) error {
	m.generateKeys()
	for range tasks {
		m.ids = append(m.ids, uuid.NewString())
	}
	return nil
}

func (m *market) generateKeys() {
	for range agents {
		m.keys = append(m.keys, strings.ReplaceAll(uuid.NewString()+uuid.NewString(), "-", ""))
	}
}

// fillWithoutKeys posts tasks to a server that stores them and checks no key.
func fillWithoutKeys(ctx context.Context, m *market, tasks int) error {
	m.generateKeys()
	return m.postAll(ctx, tasks)
}

// fillMarket registers agents and posts tasks.
func fillMarket(ctx context.Context, m *market, tasks int) error {
	conn, err := load.Dial(ctx, m.addr)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // the connection is not used again
	register := graphql("", `mutation { registerAgent(input: {name: "bench-#########", capabilities: ["bench"]}) { apiKey agent { id } } }`, nil, `"apiKey":`, 1)
	for range agents {
		var registered struct {
			RegisterAgent struct{ APIKey string }
		}
		if err := m.query(conn, register, &registered); err != nil {
			return fmt.Errorf("register: %w", err)
		}
		m.keys = append(m.keys, registered.RegisterAgent.APIKey)
	}
	if err := m.registerWebhook(conn); err != nil {
		return err
	}
	return m.postAll(ctx, tasks)
}

// registerWebhook registers an agent with a webhook, because a post enqueues a job only if
// there is one. No task requires its capability, so it is never called.
func (m *market) registerWebhook(conn *load.Connection) error {
	hooked := graphql("", `mutation { registerAgent(input: {name: "hooked", capabilities: ["nothing-asked-for"], webhookUrl: "https://hooks.example.com/tasks"}) { apiKey } }`, nil, `"apiKey":`, 1)
	if _, err := conn.Do(hooked, m.stamps.Next()); err != nil {
		return fmt.Errorf("register with a webhook: %w", err)
	}
	return nil
}

// postAll posts tasks and records their IDs.
func (m *market) postAll(ctx context.Context, tasks int) error {
	sequences := slices.Repeat([][]load.Request{m.target.posts(m)[:1]}, tasks)
	_, err := load.RunSequences(ctx, m.addr, 16, sequences, &m.stamps, func(answer []byte) { m.ids = append(m.ids, firstID(answer)) })
	if err != nil {
		return fmt.Errorf("post: %w", err)
	}
	return nil
}

// firstID returns the first ID in a response.
func firstID(answer []byte) string {
	_, rest, _ := strings.Cut(string(answer), `"id":"`)
	id, _, _ := strings.Cut(rest, `"`)
	return id
}

func (m *market) query(conn *load.Connection, request load.Request, data any) error {
	text, err := conn.Do(request, m.stamps.Next())
	if err != nil {
		return err
	}
	return json.Unmarshal(text, &struct{ Data any }{data})
}

// posts are requests to post a task, one for each agent.
func (m *market) posts() []load.Request {
	return m.postsWithCapabilities([]string{"bench", "research"})
}

// postsWithCapabilities are posts that require other capabilities.
func (m *market) postsWithCapabilities(words []string) []load.Request {
	var requests []load.Request
	for _, key := range m.keys {
		requests = append(requests, graphql(key,
			`mutation($input: PostTaskInput!) { postTask(input: $input) { task { id } } }`,
			map[string]any{"input": map[string]any{
				"title":                "bench-" + load.Stamp,
				"description":          loremIpsum(),
				"budget":               10,
				"requiredCapabilities": words,
			}},
			`"id":"`, 1))
	}
	return requests
}

// reads are requests for one task, one for each task.
func (m *market) reads() []load.Request {
	var requests []load.Request
	for i, id := range m.ids {
		requests = append(requests, graphql(m.key(i),
			`query($id: ID!) { task(id: $id) { `+taskFields+` } }`,
			map[string]any{"id": id},
			`"id":"`+id+`"`, 1))
	}
	return requests
}

// lists are requests for the newest 20 open tasks, one for each agent.
func (m *market) lists() []load.Request {
	var requests []load.Request
	for _, key := range m.keys {
		requests = append(requests, graphql(key,
			`query { tasks(first: 20, filter: {status: [OPEN]}) { nodes { `+taskFields+` } } }`,
			nil, `"title":"bench`, 20))
	}
	return requests
}

// restReads and restLists are the same requests over REST.
func (m *market) restReads() []load.Request {
	var requests []load.Request
	for i, id := range m.ids {
		requests = append(requests, load.NewRequest("GET", "/api/tasks/"+id, keyHeader(m.key(i)), "", `"id":"`+id+`"`, 1))
	}
	return requests
}

func (m *market) restLists() []load.Request {
	var requests []load.Request
	for _, key := range m.keys {
		requests = append(requests, load.NewRequest("GET", "/api/tasks?status=open&limit=20", keyHeader(key), "", `"title":"bench`, 20))
	}
	return requests
}

func (m *market) key(i int) string { return m.keys[i%len(m.keys)] }

// subscription is the subscription of an audience, with keys of agents other than the
// poster. Stalled subscribers, the first ones, select enough fields that their receive
// buffers soon fill.
func (m *market) subscription(a audience) load.Subscription {
	heavy := strings.Builder{}
	for i := range 25 { // the product allows 30 aliases
		fmt.Fprintf(&heavy, "d%d: description ", i)
	}
	return load.Subscription{
		Addr: m.addr,
		Init: func(i int) string { return `{"X-API-Key":"` + m.keys[1+i%(len(m.keys)-1)] + `"}` },
		Payload: func(i int) string {
			fields, variables := taskFields, map[string]any{}
			if i < a.stalled {
				fields += " " + heavy.String()
			}
			if asked := a.filterFor(i); asked != nil {
				variables["capabilities"] = asked
			}
			return graphqlBody(`subscription($capabilities: [String!]) { taskPosted(capabilities: $capabilities) { cursor task { `+fields+` } } }`, variables)
		},
		StampPrefix:  `"title":"bench-`,
		CursorPrefix: `"cursor":"`,
	}
}

// subscriptionWithoutCursors is the same for a server whose events have no cursors.
func (m *market) subscriptionWithoutCursors(a audience) load.Subscription {
	sub := m.subscription(a)
	sub.CursorPrefix = ""
	return sub
}

// graphql returns a GraphQL request with an API key.
func graphql(key, query string, variables map[string]any, want string, times int) load.Request {
	return load.NewRequest("POST", "/graphql", keyHeader(key), graphqlBody(query, variables), want, times)
}

func graphqlBody(query string, variables map[string]any) string {
	body, err := json.Marshal(struct {
		Query     string         `json:"query"`
		Variables map[string]any `json:"variables,omitempty"`
	}{query, variables})
	if err != nil {
		panic(err) // strings and numbers can always be encoded
	}
	return string(body)
}

func keyHeader(key string) []string {
	if key == "" {
		return nil
	}
	return []string{"X-API-Key: " + key}
}

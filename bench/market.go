package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"agentmarket.space/server/bench/load"
)

// market is a running server with agents and tasks in it, and the requests
// that are sent to it. The baseline gets the very same requests.
type market struct {
	*server
	numbers load.Numbers
	keys    []string // of agents that can pay
	ids     []string // of open tasks
}

const (
	agents    = 32
	openTasks = 500

	taskFields = `id title description budget status requiredCapabilities createdAt poster { id }`
)

// product is the market itself, with its promises kept: keys checked, money
// moved, events and jobs written, every commit on the disk. Only rate limits
// are off, and its agents are rich.
func product(binary string) command {
	return func(ctx context.Context, addr, dir string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, binary)
		cmd.Env = []string{
			"PATH=" + os.Getenv("PATH"),
			"HOME=" + dir,
			"AGENTMARKET_ADDR=" + addr,
			"AGENTMARKET_DATABASE=" + filepath.Join(dir, "agentmarket.db"),
			"AGENTMARKET_RATE_LIMITS=off",
			"AGENTMARKET_STARTING_CREDITS=1000000000",
		}
		return cmd
	}
}

// baseline is bench/baseline, started with some of its flags.
func baseline(binary string, flags ...string) command {
	return func(ctx context.Context, addr, _ string) *exec.Cmd {
		return exec.CommandContext(ctx, binary, append([]string{"-addr", addr}, flags...)...)
	}
}

// pretend fills m with keys and ids that a baseline, which checks and looks up
// nothing, takes for real ones.
func (m *market) pretend() {
	for range agents {
		m.keys = append(m.keys, strings.ReplaceAll(uuid.NewString()+uuid.NewString(), "-", ""))
	}
	for range openTasks {
		m.ids = append(m.ids, uuid.NewString())
	}
}

// populate registers agents and posts tasks.
func (m *market) populate(ctx context.Context, tasks int) error {
	conn, err := load.Dial(ctx, m.addr)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is lost with it
	register := graphql("", `mutation { registerAgent(input: {name: "bench-#########", capabilities: ["bench"]}) { apiKey agent { id } } }`, nil, `"apiKey":`, 1)
	for range agents {
		var registered struct {
			RegisterAgent struct{ APIKey string }
		}
		if err := m.ask(conn, register, &registered); err != nil {
			return fmt.Errorf("register: %w", err)
		}
		m.keys = append(m.keys, registered.RegisterAgent.APIKey)
	}
	// While any agent has a webhook, a post enqueues a job. This one's never
	// fires: nobody asks for what it can do.
	hooked := graphql("", `mutation { registerAgent(input: {name: "hooked", capabilities: ["nothing-asked-for"], webhookUrl: "https://hooks.example.com/tasks"}) { apiKey } }`, nil, `"apiKey":`, 1)
	if _, err := conn.Do(hooked, m.numbers.Next()); err != nil {
		return fmt.Errorf("register with a webhook: %w", err)
	}
	for range tasks {
		var posted struct {
			PostTask struct{ Task struct{ ID string } }
		}
		if err := m.ask(conn, m.posts()[0], &posted); err != nil {
			return fmt.Errorf("post: %w", err)
		}
		m.ids = append(m.ids, posted.PostTask.Task.ID)
	}
	return nil
}

func (m *market) ask(conn *load.Connection, request load.Request, data any) error {
	text, err := conn.Do(request, m.numbers.Next())
	if err != nil {
		return err
	}
	return json.Unmarshal(text, &struct{ Data any }{data})
}

// posts are requests to post a task, one for each agent.
func (m *market) posts() []load.Request {
	var requests []load.Request
	for _, key := range m.keys {
		requests = append(requests, graphql(key,
			`mutation($input: PostTaskInput!) { postTask(input: $input) { task { id } } }`,
			map[string]any{"input": map[string]any{
				"title":                "bench-" + load.Stamp,
				"description":          strings.Repeat("lorem ipsum dolor sit amet ", 8)[:200],
				"budget":               10,
				"requiredCapabilities": []string{"bench", "research"},
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

// restReads and restLists ask the REST routes for the same.
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

// subscription is what every subscriber asks for, with the key of an agent
// that posts nothing.
func (m *market) subscription() load.Subscription {
	payload, err := json.Marshal(map[string]any{
		"query": `subscription { taskPosted(capabilities: ["bench"]) { cursor task { ` + taskFields + ` } } }`,
	})
	if err != nil {
		panic(err) // strings always have JSON
	}
	return load.Subscription{
		Addr:    m.addr,
		Init:    `{"X-API-Key":"` + m.keys[len(m.keys)-1] + `"}`,
		Payload: string(payload),
		Mark:    `"title":"bench-`,
	}
}

// graphql is a GraphQL request, as the caller with that key.
func graphql(key, query string, variables map[string]any, want string, times int) load.Request {
	body, err := json.Marshal(struct {
		Query     string         `json:"query"`
		Variables map[string]any `json:"variables,omitempty"`
	}{query, variables})
	if err != nil {
		panic(err) // strings and numbers always have JSON
	}
	return load.NewRequest("POST", "/graphql", keyHeader(key), string(body), want, times)
}

func keyHeader(key string) []string {
	if key == "" {
		return nil
	}
	return []string{"X-API-Key: " + key}
}

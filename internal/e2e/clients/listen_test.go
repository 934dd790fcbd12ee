package clients_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"agentmarket.space/server/internal/e2e/program"
)

// clients are the names in clients.mjs.
func clients() []string {
	return []string{"graphql-ws", "subscriptions-transport-ws", "graphql-sse"}
}

// TestCutAgainAndAgain posts tasks while every client's connections are cut and
// the server is killed and started again. Each client subscribes again after its
// last cursor: in the end it has seen every task once, in the order of posting.
func TestCutAgainAndAgain(t *testing.T) {
	t.Parallel()
	server := program.Start(t, "AGENTMARKET_STARTING_CREDITS=100000")
	door := openDoor(t, server.URL)
	poster := server.Register("Poster", nil)
	var listeners []*listener
	for i, name := range clients() {
		agent := server.Register("Listener", map[string]any{"capabilities": []string{"listening"}})
		listeners = append(listeners, listen(t, script(t, "listen.mjs", name, door.url, agent.Key)))
		door.await(i + 1)
	}
	var posted []string
	for round := range 12 {
		for range 25 {
			title := fmt.Sprintf("Task %d", len(posted)+1)
			if err := post(server, poster.Key, title, "listening"); err != nil {
				t.Fatal(err)
			}
			posted = append(posted, title)
			if len(posted)%10 == 0 {
				door.cut()
			}
		}
		if err := post(server, poster.Key, "For others", "other"); err != nil {
			t.Fatal(err)
		}
		if round%4 == 3 {
			server.Kill()
			server.Restart()
		}
		for _, l := range listeners { // in step, so that each is cut while it listens
			l.await(posted[len(posted)-1])
		}
	}
	for i, l := range listeners {
		if !slices.Equal(l.titles, posted) {
			t.Errorf("%s has seen %q", clients()[i], l.titles)
		}
		if l.cuts < 12 {
			t.Errorf("%s was cut %d times only", clients()[i], l.cuts)
		}
	}
}

// TestOperations runs a query and a mutation with every client, and one with a
// key that nobody has.
func TestOperations(t *testing.T) {
	t.Parallel()
	server := program.Start(t)
	agent := server.Register("Operator", nil)
	type result struct {
		Data struct {
			Viewer   struct{ Agent struct{ Name string } }
			PostTask struct{ Task struct{ Status string } }
		}
		Refused string
	}
	operate := func(t *testing.T, name, key, query string) result {
		t.Helper()
		return lines[result](t, script(t, "operate.mjs", name, server.URL+"/graphql", key, query))[0]
	}
	for _, name := range clients() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := operate(t, name, agent.Key, "{ viewer { agent { name } } }"); got.Data.Viewer.Agent.Name != "Operator" {
				t.Errorf("a query: %+v", got)
			}
			const mutation = `mutation { postTask(input: {title: "T", description: "D", budget: 10, requiredCapabilities: ["x"]}) { task { status } } }`
			if got := operate(t, name, agent.Key, mutation); got.Data.PostTask.Task.Status != "OPEN" {
				t.Errorf("a mutation: %+v", got)
			}
			refusals := map[string]string{
				"graphql-ws": "Forbidden", "subscriptions-transport-ws": "disconnected", "graphql-sse": "Server responded with 401: Unauthorized",
			}
			if got := operate(t, name, "nobody's", "{ viewer { agent { name } } }"); got.Refused != refusals[name] {
				t.Errorf("a wrong key: %+v", got)
			}
		})
	}
}

// TestReadme runs the lines that README.md has for listening.
func TestReadme(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "## Listen\n")
	_, code, _ := strings.Cut(section, "```js\n")
	code, _, _ = strings.Cut(code, "```")
	server := program.Start(t, "AGENTMARKET_STARTING_CREDITS=100000")
	agent := server.Register("Listener", map[string]any{"capabilities": []string{"listening"}})
	poster := server.Register("Poster", nil)
	cmd := script(t, "clients.mjs")
	file := filepath.Join(filepath.Dir(cmd.Args[1]), "readme.mjs")
	code = strings.ReplaceAll(code, "ws://127.0.0.1:8080", strings.Replace(server.URL, "http", "ws", 1))
	if err := os.WriteFile(file, []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd.Args[1] = file
	cmd.Env = append(os.Environ(), "API_KEY="+agent.Key)
	heard := listen(t, cmd)
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for range 200 { // it does not say when it listens
		if err := post(server, poster.Key, "Heard by a reader", "listening"); err != nil {
			t.Fatal(err)
		}
		select {
		case line := <-heard.lines:
			if !strings.HasSuffix(string(line), " {") { // CURSOR { id: …
				t.Errorf("it printed %s", line)
			}
			return
		case <-again.C:
		}
	}
	t.Error("nothing was heard")
}

func post(server *program.Server, key, title, capability string) error {
	var data struct{}
	return server.Query(key, `mutation($title: String!, $capability: String!) {
		postTask(input: {title: $title, description: "Listen.", budget: 10, requiredCapabilities: [$capability]}) { task { id } }
	}`, map[string]any{"title": title, "capability": capability}, &data)
}

// listener is a running listen.mjs.
type listener struct {
	t      *testing.T
	lines  <-chan []byte
	titles []string
	cuts   int
}

func listen(t *testing.T, cmd *exec.Cmd) *listener {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	printed := make(chan []byte, 1000)
	t.Cleanup(func() { _ = cmd.Wait() }) // the end of the test's context has killed it
	go func() {
		defer close(printed)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			printed <- []byte(scanner.Text())
		}
	}()
	return &listener{t: t, lines: printed}
}

// await reads on until a task has come.
func (l *listener) await(title string) {
	l.t.Helper()
	tooLong := time.After(30 * time.Second)
	for !slices.Contains(l.titles, title) {
		select {
		case text, ok := <-l.lines:
			if !ok {
				l.t.Fatalf("the client ended before %s came", title)
			}
			line := parse[struct{ Title, Cut string }](l.t, text)
			if line.Cut != "" {
				l.cuts++
				continue
			}
			l.titles = append(l.titles, line.Title)
		case <-tooLong:
			l.t.Fatalf("%s does not come", title)
		}
	}
}

// door is a TCP proxy before the server, which cuts connections.
type door struct {
	url    string
	target string

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	some  *sync.Cond // conns has changed
}

func openDoor(t *testing.T, target string) *door {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{url: "http://" + listener.Addr().String() + "/graphql", target: strings.TrimPrefix(target, "http://"), conns: map[net.Conn]struct{}{}}
	d.some = sync.NewCond(&d.mu)
	t.Cleanup(func() {
		_ = listener.Close()
		d.cut()
	})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go d.pass(conn)
		}
	}()
	return d
}

func (d *door) pass(client net.Conn) {
	defer client.Close() //nolint:errcheck // cut or ended
	server, err := net.Dial("tcp", d.target)
	if err != nil {
		return
	}
	defer server.Close() //nolint:errcheck // as above
	d.mu.Lock()
	d.conns[client] = struct{}{}
	d.some.Broadcast()
	d.mu.Unlock()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	_, _ = io.Copy(client, server)
	d.mu.Lock()
	delete(d.conns, client)
	d.mu.Unlock()
}

// cut ends every connection.
func (d *door) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for conn := range d.conns {
		_ = conn.Close()
	}
}

// await waits until so many connections are open.
func (d *door) await(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.conns) < n {
		d.some.Wait()
	}
}

package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

// TestQuickStart runs the documented commands unchanged: curl reaches your-domain.com
// through a proxy to the server.
func TestQuickStart(t *testing.T) {
	t.Parallel()
	runScript(t, "testdata/quickstart.txtar", nil)
}

// TestReadme runs the same script with the commands of the Quick start of README.md in
// place of the documented ones.
func TestReadme(t *testing.T) {
	t.Parallel()
	section := strings.ReplaceAll(testutil.CodeBlock(t, "../../../README.md", "Quick start", "sh"), "http://127.0.0.1:8080", "https://your-domain.com")
	files := map[string]string{}
	for i, name := range []string{"register.sh", "browse.sh", "accept.sh", "complete.sh", "execute.sh"} {
		begins, ends := fmt.Sprintf("# %d. ", i+1), fmt.Sprintf("# %d. ", i+2)
		_, step, found := strings.Cut(section, begins)
		step, _, _ = strings.Cut(step, ends)
		if !found {
			t.Fatalf("the Quick start has no step %d", i+1)
		}
		files[name] = begins + step
	}
	runScript(t, "testdata/quickstart.txtar", files)
}

// runScript runs a script against a new server. files replace those of the script.
func runScript(t *testing.T, script string, files map[string]string) {
	t.Helper()
	testserver.RequireTool(t, "curl")
	endpoint, env := testserver.ServeTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var call struct{ Task struct{ Description string } }
		if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_, _ = fmt.Fprintf(w, "Did: %s", call.Task.Description)
	}))
	s := &scriptCommands{server: testserver.Start(t, env...), endpoint: endpoint + "/execute"}
	target, err := url.Parse(s.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewTLSServer(httputil.NewSingleHostReverseProxy(target))
	t.Cleanup(front.Close)
	testscript.Run(t, testscript.Params{
		Files: []string{script},
		Setup: func(e *testscript.Env) error {
			for name, text := range files {
				if err := os.WriteFile(filepath.Join(e.WorkDir, name), []byte(text), 0o600); err != nil {
					return err
				}
			}
			e.Setenv("CURL_HOME", e.WorkDir)
			config := fmt.Sprintf("silent\nshow-error\ninsecure\nconnect-to = \"your-domain.com:443:%s\"\n", front.Listener.Addr())
			return os.WriteFile(filepath.Join(e.WorkDir, ".curlrc"), []byte(config), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"post": s.post, "endpoint": s.registerEndpointAgent, "run": s.runFile, "is": s.expectValue, "keep": s.setVariable, "balance": s.expectBalance,
			"verify": func(*testscript.TestScript, bool, []string) { s.server.Verify() },
		},
	})
}

// scriptCommands are the custom commands of scripts.
type scriptCommands struct {
	server   *testserver.Server
	endpoint string
}

// post BUDGET registers an agent that posts a task. It sets POSTER_KEY and TASK_ID.
func (s *scriptCommands) post(ts *testscript.TestScript, _ bool, args []string) {
	budget, err := strconv.Atoi(args[0])
	ts.Check(err)
	poster := s.server.Register("Poster", nil)
	var data struct {
		PostTask struct{ Task struct{ ID string } }
	}
	ts.Check(s.server.Query(poster.Key, `mutation($budget: Credits!) {
		postTask(input: {title: "Write a parser", description: "In Go.", budget: $budget, requiredCapabilities: ["coding"]}) { task { id } }
	}`, map[string]any{"budget": budget}, &data))
	ts.Setenv("POSTER_KEY", poster.Key)
	ts.Setenv("TASK_ID", data.PostTask.Task.ID)
}

// registerEndpointAgent registers an agent with an endpoint. It sets HIRED_KEY and
// AGENT_ID.
func (s *scriptCommands) registerEndpointAgent(ts *testscript.TestScript, _ bool, _ []string) {
	agent := s.server.Register("Hired", map[string]any{"endpointUrl": s.endpoint})
	ts.Setenv("HIRED_KEY", agent.Key)
	ts.Setenv("AGENT_ID", agent.ID)
}

// runFile FILE runs a shell file after replacing its placeholders.
func (*scriptCommands) runFile(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(ts.Exec("sh", "-c", strings.NewReplacer(
		"{task-id}", ts.Getenv("TASK_ID"), "your-api-key", ts.Getenv("API_KEY"), `"uuid"`, `"`+ts.Getenv("AGENT_ID")+`"`,
	).Replace(ts.ReadFile(args[0]))))
}

// expectValue PATH VALUE checks a value in the last response.
func (*scriptCommands) expectValue(ts *testscript.TestScript, _ bool, args []string) {
	if got := responseValue(ts, args[0]); got != args[1] {
		ts.Fatalf("%s is %s, want %s", args[0], got, args[1])
	}
}

// setVariable VARIABLE PATH sets a variable to a value of the last response.
func (*scriptCommands) setVariable(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], responseValue(ts, args[1]))
}

// expectBalance KEY VALUE checks the balance of an agent.
func (s *scriptCommands) expectBalance(ts *testscript.TestScript, _ bool, args []string) {
	status, text := s.server.Do(http.MethodGet, "/api/wallet", args[0], "")
	if want := `"balance":` + args[1] + `}`; status != http.StatusOK || !strings.HasSuffix(strings.TrimSpace(text), want) {
		ts.Fatalf("wallet: %d %s, want %s", status, text, args[1])
	}
}

// responseValue returns the value at a dotted path in the last response.
func responseValue(ts *testscript.TestScript, path string) string {
	var value any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &value))
	for step := range strings.SplitSeq(path, ".") {
		switch inner := value.(type) {
		case map[string]any:
			value = inner[step]
		case []any:
			i, err := strconv.Atoi(step)
			ts.Check(err)
			if i >= len(inner) {
				ts.Fatalf("%s is not in %s", path, ts.ReadFile("stdout"))
			}
			value = inner[i]
		}
	}
	return fmt.Sprint(value)
}

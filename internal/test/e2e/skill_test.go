package e2e_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"agentmarket.space/server/internal/test/e2e/testserver"
)

// TestSkill runs two agents by the instructions of skill.md, from registration to payment.
// In the end every shell command in it has run.
func TestSkill(t *testing.T) {
	t.Parallel()
	endpoint, env := testserver.ServeTLS(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("Rain on the tin roof."))
	}))
	server := testserver.Start(t, env...)
	guide := readSkill(t, server)
	worker, poster := guide.register(t), guide.register(t)

	posted := poster.run(t, "post")
	requireContains(t, posted, `"status":"open"`, `"balance":75`)
	task := posted.dataField("id")
	worker.setEnv("TASK_ID", task)
	poster.setEnv("TASK_ID", task)
	requireContains(t, worker.run(t, "find work"), task)
	requireContains(t, worker.run(t, "accept"), `"status":"assigned"`)
	requireContains(t, worker.run(t, "extend"), `"lease_until":"`)
	requireContains(t, worker.run(t, "release"), `"status":"open"`)
	worker.run(t, "accept")
	requireContains(t, worker.run(t, "complete"), `"status":"completed"`, `"balance":122`)
	requireContains(t, worker.run(t, "complete"), `"balance":122`) // a retry gets the same response
	requireContains(t, worker.run(t, "balance"), `"balance":122`)
	requireContains(t, poster.run(t, "read the result"), `"result":"The complete result."`)
	requireContains(t, poster.run(t, "rate"), `"score":5`)

	poster.replace("a-unique-key-for-this-task", "another-name")
	second := poster.run(t, "post")
	poster.setEnv("TASK_ID", second.dataField("id"))
	requireContains(t, poster.run(t, "cancel"), `"status":"cancelled"`, `"balance":75`)

	hired := server.Register("Hired", map[string]any{"endpointUrl": endpoint + "/execute", "capabilities": []string{"writing"}})
	requireContains(t, poster.run(t, "choose an agent"), hired.ID)
	poster.setEnv("AGENT_ID", hired.ID)
	requireContains(t, poster.run(t, "hire"), "Rain on the tin roof.", `"balance":60`)

	checkListener(t, server, worker)

	secret := worker.run(t, "set a webhook").dataField("webhook_secret")
	worker.setEnv("WEBHOOK_SECRET", secret)
	const body = `{"event":"task.posted"}`
	if err := os.WriteFile(filepath.Join(worker.dir, "body.json"), []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	requireContains(t, worker.run(t, "verify"), "sha256="+hex.EncodeToString(mac.Sum(nil))+"\n")

	worker.setEnv("ROTATION_ID", "0192f5a4-7a7e-7c1b-9d53-2f4f5e6a7b80")
	var rotated struct {
		Data struct{ RotateAPIKey struct{ APIKey string } }
	}
	if err := json.Unmarshal([]byte(worker.run(t, "replace the key").raw), &rotated); err != nil {
		t.Fatal(err)
	}
	requireContains(t, worker.run(t, "balance"), "UNAUTHENTICATED")
	worker.setEnv("AGENTMARKET_API_KEY", rotated.Data.RotateAPIKey.APIKey)
	requireContains(t, worker.run(t, "balance"), `"balance":122`)
	server.Verify()
	for name := range guide.scripts {
		if !guide.ran[name] {
			t.Errorf("%q was not run", name)
		}
	}
}

// checkListener runs the worker's listener while others post tasks, until it has received
// one, because a listener does not report when it is ready.
func checkListener(t *testing.T, server *testserver.Server, worker *skillAgent) {
	t.Helper()
	cmd := worker.command(t, "listen")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	received := make(chan string)
	go func() {
		var all []byte
		part := make([]byte, 4096)
		for !bytes.Contains(all, []byte("Heard of")) {
			n, err := out.Read(part)
			all = append(all, part[:n]...)
			if err != nil {
				break
			}
		}
		received <- string(all)
	}()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for n := 0; ; n++ {
		select {
		case text := <-received:
			requireContains(t, commandOutput{raw: text}, `"cursor":"`, `"title":"Heard of `)
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			return
		case <-again.C:
			body := fmt.Sprintf(`{"title":"Heard of %d","description":"D","budget":2,"required_capabilities":["writing"]}`, n)
			if status, text := server.Do(http.MethodPost, "/api/tasks", server.Register("Poster", nil).Key, body); status != http.StatusOK {
				t.Fatalf("%d %s", status, text)
			}
		}
	}
}

// skill has the shell commands of skill.md by the name in their first line.
type skill struct {
	scripts map[string]string
	ran     map[string]bool
}

func readSkill(t *testing.T, server *testserver.Server) *skill {
	t.Helper()
	_, text := server.Do(http.MethodGet, "/skill.md", "", "")
	s := &skill{scripts: map[string]string{}, ran: map[string]bool{}}
	for _, block := range regexp.MustCompile("(?ms)^```sh\n# ([^\n]+)\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
		s.scripts[block[1]] = block[2]
	}
	if strings.Count(text, "```") != 2*len(s.scripts) || len(s.scripts) == 0 {
		t.Fatalf("a shell block of skill.md has no unique name; the names are: %q", slices.Sorted(maps.Keys(s.scripts)))
	}
	return s
}

// skillAgent is an agent that follows skill.md.
type skillAgent struct {
	*skill
	dir          string
	env          map[string]string
	replacements []string // placeholders and their values, for strings.NewReplacer
}

func (s *skill) register(t *testing.T) *skillAgent {
	t.Helper()
	r := &skillAgent{skill: s, dir: t.TempDir(), env: map[string]string{}}
	registered := r.run(t, "register")
	requireContains(t, registered, `"balance":100`)
	r.setEnv("AGENTMARKET_API_KEY", registered.dataField("api_key"))
	return r
}

func (r *skillAgent) setEnv(variable, value string) { r.env[variable] = value }
func (r *skillAgent) replace(told, value string) {
	r.replacements = append(r.replacements, told, value)
}

// run runs commands and returns their output.
func (r *skillAgent) run(t *testing.T, name string) commandOutput {
	t.Helper()
	out, err := r.command(t, name).Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return commandOutput{raw: string(out)}
}

func (r *skillAgent) command(t *testing.T, name string) *exec.Cmd {
	t.Helper()
	testserver.RequireTool(t, "curl")
	lines, ok := r.scripts[name]
	if !ok {
		t.Fatalf("skill.md has no commands for %q", name)
	}
	r.ran[name] = true
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", strings.NewReplacer(r.replacements...).Replace(lines))
	cmd.Dir = r.dir
	cmd.Stderr = os.Stderr
	cmd.Env = os.Environ()
	for variable, value := range r.env {
		cmd.Env = append(cmd.Env, variable+"="+value)
	}
	return cmd
}

type commandOutput struct{ raw string }

// dataField returns a field of the response's data, or "".
func (p commandOutput) dataField(name string) string {
	var answer struct{ Data map[string]any }
	_ = json.Unmarshal([]byte(p.raw), &answer) // then the field is ""
	text, _ := answer.Data[name].(string)
	return text
}

func requireContains(t *testing.T, got commandOutput, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(got.raw, part) {
			t.Fatalf("got %s, want %s", got.raw, part)
		}
	}
}

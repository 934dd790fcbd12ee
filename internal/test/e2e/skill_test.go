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

	"agentmarket.space/server/internal/test/e2e/program"
)

// TestSkill has two agents do as a server's skill.md says, from registration to
// payment, and in the end every shell line in it has run.
func TestSkill(t *testing.T) {
	t.Parallel()
	endpoint, env := program.Listen(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("Rain on the tin roof."))
	}))
	server := program.Start(t, env...)
	guide := readSkill(t, server)
	worker, poster := guide.join(t), guide.join(t)

	posted := poster.do(t, "post")
	wants(t, posted, `"status":"open"`, `"balance":75`)
	task := posted.text("id")
	worker.set("TASK_ID", task)
	poster.set("TASK_ID", task)
	wants(t, worker.do(t, "find work"), task)
	wants(t, worker.do(t, "accept"), `"status":"assigned"`)
	wants(t, worker.do(t, "more time"), `"lease_until":"`)
	wants(t, worker.do(t, "give it back"), `"status":"open"`)
	worker.do(t, "accept")
	wants(t, worker.do(t, "complete"), `"status":"completed"`, `"balance":122`)
	wants(t, worker.do(t, "complete"), `"balance":122`) // as for who had no answer
	wants(t, worker.do(t, "balance"), `"balance":122`)
	wants(t, poster.do(t, "look"), `"result":"The work, whole."`)
	wants(t, poster.do(t, "rate"), `"score":5`)

	poster.put("a-name-of-your-own-for-this-task", "another-name")
	second := poster.do(t, "post")
	poster.set("TASK_ID", second.text("id"))
	wants(t, poster.do(t, "cancel"), `"status":"cancelled"`, `"balance":75`)

	hired := server.Register("Hired", map[string]any{"endpointUrl": endpoint + "/execute", "capabilities": []string{"writing"}})
	wants(t, poster.do(t, "choose an agent"), hired.ID)
	poster.set("AGENT_ID", hired.ID)
	wants(t, poster.do(t, "hire"), "Rain on the tin roof.", `"balance":60`)

	listens(t, server, worker)

	secret := worker.do(t, "set a webhook").text("webhook_secret")
	worker.set("WEBHOOK_SECRET", secret)
	const body = `{"event":"task.posted"}`
	if err := os.WriteFile(filepath.Join(worker.dir, "body.json"), []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	wants(t, worker.do(t, "verify"), "sha256="+hex.EncodeToString(mac.Sum(nil))+"\n")

	var rotated struct {
		Data struct{ RotateAPIKey struct{ APIKey string } }
	}
	if err := json.Unmarshal([]byte(worker.do(t, "replace the key").raw), &rotated); err != nil {
		t.Fatal(err)
	}
	wants(t, worker.do(t, "balance"), "UNAUTHENTICATED")
	worker.set("AGENTMARKET_API_KEY", rotated.Data.RotateAPIKey.APIKey)
	wants(t, worker.do(t, "balance"), `"balance":122`)
	server.Verify()
	for name := range guide.lines {
		if !guide.ran[name] {
			t.Errorf("nobody has run %q", name)
		}
	}
}

// listens has the worker listen while others post, until it has heard of one: a
// listener does not say when it is ready.
func listens(t *testing.T, server *program.Server, worker *reader) {
	t.Helper()
	cmd := worker.command(t, "listen")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	heard := make(chan string)
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
		heard <- string(all)
	}()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for n := 0; ; n++ {
		select {
		case text := <-heard:
			wants(t, printed{raw: text}, `"cursor":"`, `"title":"Heard of `)
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

// skill is the shell lines of a server's skill.md by the name in their first line.
type skill struct {
	lines map[string]string
	ran   map[string]bool
}

func readSkill(t *testing.T, server *program.Server) *skill {
	t.Helper()
	_, text := server.Do(http.MethodGet, "/skill.md", "", "")
	s := &skill{lines: map[string]string{}, ran: map[string]bool{}}
	for _, block := range regexp.MustCompile("(?ms)^```sh\n# ([^\n]+)\n(.*?)^```$").FindAllStringSubmatch(text, -1) {
		s.lines[block[1]] = block[2]
	}
	if strings.Count(text, "```") != 2*len(s.lines) || len(s.lines) == 0 {
		t.Fatalf("some of skill.md is no shell lines with a name of their own; these are: %q", slices.Sorted(maps.Keys(s.lines)))
	}
	return s
}

// reader is an agent that does as it reads.
type reader struct {
	*skill
	dir string
	env map[string]string
	in  []string // what it puts in for what it is told to: pairs, for a replacer
}

// join registers an agent.
func (s *skill) join(t *testing.T) *reader {
	t.Helper()
	r := &reader{skill: s, dir: t.TempDir(), env: map[string]string{}}
	registered := r.do(t, "register")
	wants(t, registered, `"balance":100`)
	r.set("AGENTMARKET_API_KEY", registered.text("api_key"))
	return r
}

func (r *reader) set(variable, value string) { r.env[variable] = value }
func (r *reader) put(told, value string)     { r.in = append(r.in, told, value) }

// do runs lines and returns what they print.
func (r *reader) do(t *testing.T, name string) printed {
	t.Helper()
	out, err := r.command(t, name).Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return printed{raw: string(out)}
}

func (r *reader) command(t *testing.T, name string) *exec.Cmd {
	t.Helper()
	program.Tool(t, "curl")
	lines, ok := r.lines[name]
	if !ok {
		t.Fatalf("skill.md does not say how to %q", name)
	}
	r.ran[name] = true
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", strings.NewReplacer(r.in...).Replace(lines))
	cmd.Dir = r.dir
	cmd.Stderr = os.Stderr
	cmd.Env = os.Environ()
	for variable, value := range r.env {
		cmd.Env = append(cmd.Env, variable+"="+value)
	}
	return cmd
}

// printed is what lines printed.
type printed struct{ raw string }

// text is a member of an answer's data.
func (p printed) text(name string) string {
	var answer struct{ Data map[string]any }
	_ = json.Unmarshal([]byte(p.raw), &answer) // then there is none
	text, _ := answer.Data[name].(string)
	return text
}

func wants(t *testing.T, got printed, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(got.raw, part) {
			t.Fatalf("answered %s, want %s", got.raw, part)
		}
	}
}

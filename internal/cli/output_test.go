package cli_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestConfig checks the effective configuration as a table and as JSON, without
// secrets.
func TestConfig(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "settings.json")
	if err := os.WriteFile(path, []byte(`{"open-for": "2h", "operator-key": "0123456789abcdef0123456789abcdef"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	text, stderr, code := runCLI(t, "config", "--config", path, "--lease=4h", "--database=postgres://somebody:secret@db1/market", "--secret-key=0123456789abcdef")
	if code != 0 || stderr != "" || strings.Contains(text, "0123456789") || strings.Contains(text, ":secret") {
		t.Errorf("exit code %d, stderr %q, stdout %s", code, stderr, text)
	}
	for _, row := range []string{`lease +flag +4h0m0s`, `open-for +file +2h0m0s`, `operator-key +file +\*+`, `addr +default +127\.0\.0\.1:8080`} {
		if !regexp.MustCompile("(?m)^" + row + "$").MatchString(text) {
			t.Errorf("no row matches %q in\n%s", row, text)
		}
	}
	text, _, code = runCLI(t, "config", "--config", path, "--json")
	var settings map[string]struct{ Value, From, Variable string }
	if err := json.Unmarshal([]byte(text), &settings); err != nil || code != 0 {
		t.Fatalf("exit code %d, stdout %s: %v", code, text, err)
	}
	if got := settings["open-for"]; got.Value != "2h0m0s" || got.From != "file" || got.Variable != "AGENTMARKET_OPEN_FOR" {
		t.Errorf("got open-for %+v", got)
	}
}

// TestSchema checks that the printed schema is schema.graphqls.
func TestSchema(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("../../schema.graphqls")
	if err != nil {
		t.Fatal(err)
	}
	if text, _, code := runCLI(t, "schema"); code != 0 || text != string(want) {
		t.Errorf("exit code %d, stdout %s", code, text)
	}
}

// TestCompletion_bash checks completion in bash for commands, flags and values, and the
// fallback to file names.
func TestCompletion_bash(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	switch {
	case err != nil && os.Getenv("CI") != "":
		t.Fatal(err)
	case err != nil:
		t.Skip("bash is not installed")
	}
	script, _, code := runCLI(t, "completion", "bash")
	if code != 0 {
		t.Fatalf("exit code %d", code)
	}
	for line, want := range map[string]string{
		"ver":                              "verify version",
		"tasks po":                         "post",
		"tasks --url http://a rel":         "release",
		"--lease 2h ser":                   "serve",
		"tasks post --bud":                 "--budget",
		"tasks list --status ass":          "assigned",
		"tasks list --status = ass":        "assigned",
		"tasks list --status =":            "open assigned completed cancelled expired failed",
		"completion z":                     "zsh",
		"backup --to ver":                  "",
		"--rate-limits ":                   "on off",
		"no-command po":                    "",
		"restore --fr":                     "--from",
		"serve --claude-tokens-per-hour-p": "--claude-tokens-per-hour-per-agent",
	} {
		words := strings.Split("agentmarket "+line, " ")
		cmd := exec.CommandContext(t.Context(), bash, "--norc", "-c", script+`
			COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _agentmarket; echo "${COMPREPLY[@]}"`, "bash")
		cmd.Args = append(cmd.Args, words...)
		got, err := cmd.CombinedOutput()
		if err != nil || strings.TrimSuffix(string(got), "\n") != want {
			t.Errorf("%q: got completion %q, want %q (%v)", line, got, want, err)
		}
	}
}

// TestCompletion_zshAndFish checks the syntax of the scripts if the shell is installed.
func TestCompletion_zshAndFish(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"zsh", "fish"} {
		script, _, code := runCLI(t, "completion", shell)
		if code != 0 || !strings.Contains(script, "tasks") {
			t.Errorf("%s: ended with %d and printed %s", shell, code, script)
		}
		path, err := exec.LookPath(shell)
		if err != nil {
			continue
		}
		cmd := exec.CommandContext(t.Context(), path, "-n")
		cmd.Stdin = strings.NewReader(script)
		if output, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", shell, err, output)
		}
	}
}

// Package terminal_test types the documented commands into a terminal and compares the
// output with golden files.
package terminal_test

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	_ "agentmarket.space/server/internal/dev" // so that go test reruns the tests when the commands change
	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

func TestMain(m *testing.M) { testserver.Main(m) }

var update = flag.Bool("update", false, "rewrite the golden files")

const (
	// The size of a terminal: wide enough that no line wraps, high enough that none scrolls off.
	columns, rows = "300", "200"
	prompt        = `\n\$ $`
)

// terminal is a tmux server with named windows.
type terminal struct {
	t       *testing.T
	socket  string
	dir     string   // working directory of its shells
	env     []string // environment of its shells
	windows []string // names in the order of creation
}

// openTerminal starts a terminal with the program on its PATH as agentmarket.
func openTerminal(t *testing.T) *terminal {
	t.Helper()
	testserver.RequireTool(t, "tmux")
	term := &terminal{t: t, socket: filepath.Join(t.TempDir(), "s"), dir: t.TempDir()}
	bin := t.TempDir()
	if err := os.Symlink(testserver.BinaryPath(), filepath.Join(bin, "agentmarket")); err != nil {
		t.Fatal(err)
	}
	term.env = []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + term.dir, "TMPDIR=" + term.dir, "TERM=xterm-256color", "LC_ALL=C.UTF-8", "SHELL=/bin/sh", "TZ=UTC",
	}
	term.tmux("-f", os.DevNull, "new-session", "-d", "-n", "none", "-x", columns, "-y", rows)
	t.Cleanup(func() { _ = term.command(context.WithoutCancel(t.Context()), "kill-server").Run() })
	return term
}

func (term *terminal) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "tmux", append([]string{"-S", term.socket}, args...)...)
	cmd.Dir, cmd.Env = term.dir, term.env
	return cmd
}

func (term *terminal) tmux(args ...string) string {
	term.t.Helper()
	text, err := term.command(term.t.Context(), args...).CombinedOutput()
	if err != nil {
		term.t.Fatalf("tmux %q: %v\n%s", args, err, text)
	}
	return string(text)
}

func (term *terminal) openWindow(name string) {
	term.t.Helper()
	term.tmux("new-window", "-d", "-n", name, "-c", term.dir, "exec env 'PS1=$ ' sh") // a login shell would change the prompt
	term.windows = append(term.windows, name)
	term.waitFor(name, 0, `^\$ $`)
}

// typeLine types a line and waits until the window shows a pattern after it. It returns the
// match of the last group.
func (term *terminal) typeLine(window, line, pattern string) string {
	term.t.Helper()
	before := len(term.content(window))
	term.tmux("send-keys", "-t", window, "-l", line)
	term.tmux("send-keys", "-t", window, "Enter")
	return term.waitFor(window, before+len(line), pattern)
}

// runLine types a line and waits until its command has ended. It returns the match of the
// pattern's last group.
func (term *terminal) runLine(window, line, pattern string) string {
	term.t.Helper()
	return term.typeLine(window, line, pattern+`(?s:.*)\$ $`)
}

// interrupt presses Ctrl-C and waits for the prompt.
func (term *terminal) interrupt(window string) {
	term.t.Helper()
	before := len(term.content(window))
	term.tmux("send-keys", "-t", window, "C-c")
	term.waitFor(window, before, `\$ $`)
}

// waitFor waits until a window shows a pattern after its first bytes.
func (term *terminal) waitFor(window string, after int, pattern string) string {
	term.t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	timeout := time.After(testutil.Timeout)
	for {
		shown := term.content(window)
		if found := regexp.MustCompile(pattern).FindStringSubmatch(shown[min(after, len(shown)):]); found != nil {
			return found[len(found)-1]
		}
		select {
		case <-ticker.C:
		case <-timeout:
			term.t.Fatalf("%s does not show %s:\n%s", window, pattern, shown)
		}
	}
}

// content returns the text of a window without empty lines at the end.
func (term *terminal) content(window string) string {
	term.t.Helper()
	text := strings.TrimRight(term.tmux("capture-pane", "-p", "-J", "-t", window, "-S", "-"), "\n ")
	if strings.HasSuffix(text, "$") {
		text += " " // of the prompt
	}
	return text
}

// compareGolden compares the text of all windows with a golden file, with variable parts
// masked.
func (term *terminal) compareGolden(file string) {
	term.t.Helper()
	var all strings.Builder
	for _, name := range term.windows {
		all.WriteString("== " + name + "\n" + term.mask(term.content(name)) + "\n\n")
	}
	if *update {
		if err := os.WriteFile(file, []byte(all.String()), 0o600); err != nil {
			term.t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || string(want) != all.String() {
		term.t.Errorf("the output differs from %s (%v); -update rewrites it:\n%s", file, err, all.String())
	}
}

// mask replaces IDs, keys, ports, folders and times.
func (term *terminal) mask(text string) string {
	text = strings.ReplaceAll(text, term.dir, "{dir}")
	for _, mask := range [][2]string{
		{`[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`, "{id}"},
		{`sha256=[0-9a-f]+`, "sha256={signature}"},
		{`\b[0-9a-f]{64}\b`, "{key}"},
		{`whsec_[A-Za-z0-9+/]{43}=`, "{secret}"},
		{`v1,[A-Za-z0-9+/]{43}=`, "v1,{signature}"},
		{`127\.0\.0\.1:\d{5}`, "127.0.0.1:{port}"},
		{`agentmarket-dev-\d+`, "agentmarket-dev-{number}"},
		{`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?`, "{time}"},
		{`(?i)(timestamp: )\d+`, "${1}{seconds}"},
		{`(AgentMarket[ /])\S+`, "${1}{version}"},
		{` +\n`, "\n"},
	} {
		text = regexp.MustCompile(mask[0]).ReplaceAllString(text, mask[1])
	}
	return strings.TrimRight(text, "\n ")
}

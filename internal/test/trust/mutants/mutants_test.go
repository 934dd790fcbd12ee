package mutants

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/internal/test/trust/trusttest"
)

// root is the root of the module.
const root = "../../../.."

// bug is a change of one file and the test that notices it.
type bug struct {
	name  string
	file  string
	edits []string // pairs of text that occurs once and its replacement
	pkg   string
	test  string
}

// bugs are mistakes that were made, here or elsewhere, or are easily made.
func bugs() []bug {
	return []bug{
		{
			"an assigned task can be accepted", "internal/market/accept.go",
			[]string{"status != models.Open {", "status.Ended() {"},
			"internal/market", "TestAccept",
		},
		{
			"the worker's share is rounded up", "models/credits.go",
			[]string{"c * (100 - FeePercent) / 100", "(c*(100-FeePercent) + 99) / 100"},
			"models", "TestCredits_Split",
		},
		{
			"a write returns before its commit", "internal/database/write.go",
			[]string{
				"b.succeeded = append(b.succeeded, c)\n", "b.succeeded = append(b.succeeded, c)\n\t\tc.result <- nil\n\t\tc.result = make(chan error, 1)\n",
			},
			"internal/database", "TestWrite_batchFails",
		},
		{
			"the signature is of other bytes than the body", "internal/webhooks/request.go",
			[]string{
				"outbound.Sign(oldest, r.body)", "outbound.Sign(oldest, again(r.body))",
				"// failureReason says why", "func again(content []byte) []byte {\n\tvar value any\n\t_ = json.Unmarshal(content, &value)\n\ttext, _ := json.Marshal(value)\n\treturn text\n}\n\n// failureReason says why",
				"\t\"context\"\n", "\t\"context\"\n\t\"encoding/json\"\n",
			},
			"internal/webhooks", "TestTaskPosted_golden",
		},
		{
			"retries have no jitter", "internal/webhooks/retry.go",
			[]string{"(1 - jitter + 2*jitter*random)", "(1 + 0*random)"},
			"internal/webhooks", "TestRetryDelay",
		},
		{
			"private addresses are called", "internal/outbound/client.go",
			[]string{", Control: c.checkDial(ssrf.New(ssrf.WithPorts(o.AllowPorts...)))}", "}\n\t_ = ssrf.New"},
			"internal/outbound", "TestPost",
		},
		{
			"other agents see the result of a task", "graph/schema.resolvers.go",
			[]string{"ok && obj.IsParty(actor.AgentID)", "ok && actor.AgentID != \"\""},
			"graph", "TestQueries_authorization",
		},
		{
			"a sleeping reader is not woken", "internal/events/feed.go",
			[]string{"\tf.asleep = true\n", ""},
			"internal/events", "TestFeed_wakesReader",
		},
		{
			"a cursor returns its own event again", "internal/events/feed.go",
			[]string{"f.cursor = *after\n", "f.cursor = *after - 1\n"},
			"internal/events", "TestReplay_overflowIsNotSlow",
		},
		{
			"wallets are locked in any order", "internal/ledger/ledger.go",
			[]string{
				"for _, agentID := range slices.Sorted(maps.Keys(wallets)) {\n\t\twallet := ", "for agentID := range maps.Keys(wallets) {\n\t\twallet := ",
			},
			"internal/ledger", "TestWalletsAreLockedInOrder",
		},
	}
}

// TestInjectedBugs compiles each bug into the program with -overlay and checks that its test fails.
// An edit that does not apply or does not compile is an error.
func TestInjectedBugs(t *testing.T) {
	t.Parallel()
	trusttest.SkipUnlessTrust(t)
	all := bugs()
	t.Cleanup(func() { trusttest.Report(t, "bugs", "%d of %d noticed", len(all), len(all)) })
	slots := make(chan struct{}, 2) // each is a build
	for _, b := range all {
		t.Run(strings.ReplaceAll(b.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			slots <- struct{}{}
			defer func() { <-slots }()
			output := b.run(t)
			if !strings.Contains(output, "--- FAIL: "+b.test) {
				t.Errorf("%s does not notice that %s:\n%s", b.test, b.name, output)
			}
		})
	}
}

// maxWait bounds the waits of a test with a bug. An event that never comes makes it fail.
const maxWait = 10 * time.Second

// run runs the bug's test with the bug and returns its output.
func (b bug) run(t *testing.T) string {
	t.Helper()
	file, err := filepath.Abs(filepath.Join(root, b.file))
	testutil.Must(t, err)
	text, err := os.ReadFile(file)
	testutil.Must(t, err)
	changed := string(text)
	for i := 0; i < len(b.edits); i += 2 {
		if n := strings.Count(changed, b.edits[i]); n != 1 {
			t.Fatalf("%s contains %q %d times, want once", b.file, b.edits[i], n)
		}
		changed = strings.Replace(changed, b.edits[i], b.edits[i+1], 1)
	}
	dir := t.TempDir()
	replacement := filepath.Join(dir, "changed.go")
	testutil.Must(t, os.WriteFile(replacement, []byte(changed), 0o600))
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{file: replacement}})
	testutil.Must(t, err)
	testutil.Must(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-vet=off", "-ldflags=-s -w", "-timeout=60s", "-overlay", filepath.Join(dir, "overlay.json"), "-run", "^"+b.test+"$", "./"+b.pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), testutil.TimeoutEnv+"="+maxWait.String())
	output, _ := cmd.CombinedOutput() // the test must fail
	return string(output)
}

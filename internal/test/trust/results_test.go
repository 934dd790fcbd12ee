package main

import (
	"io"
	"slices"
	"strings"
	"testing"
)

const sampleOutput = `=== RUN   TestWinner
    winner_test.go:31: trust: winner: 50 tasks, one each
--- PASS: TestWinner (1.0s)
--- SKIP: TestKill (0.0s)
PASS
`

// TestVerdict: a claim that failed, was not shown or could not be shown in CI is
// named; only what is missing on a machine of one's own is forgiven.
func TestVerdict(t *testing.T) {
	t.Parallel()
	winner := claimSpec{"winner", "one wins", "TestWinner", sqlite}
	killed := claimSpec{"kill", "nothing is lost", "TestKill", sqlite}
	backup := claimSpec{"backup", "it is whole", "TestBackup", bothEngines}
	for name, row := range map[string]struct {
		claims []claimSpec
		failed []string
		ci     bool
		want   string
	}{
		"all is shown":            {[]claimSpec{winner}, nil, true, ""},
		"skipped at home":         {[]claimSpec{winner, killed}, nil, false, ""},
		"skipped in CI":           {[]claimSpec{winner, killed}, nil, true, "kill has no figure on SQLite"},
		"said nothing":            {[]claimSpec{winner, backup}, nil, false, "backup has no figure on SQLite; backup has no figure on PostgreSQL"},
		"said something and fell": {[]claimSpec{winner}, []string{"./a on SQLite"}, false, "./a on SQLite failed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := []testRun{{pkg: "./a", claims: row.claims}}
			r := &results{measurements: map[claimOnEngine]string{}, skipped: map[claimOnEngine]bool{}, failed: row.failed, out: io.Discard}
			r.parseOutput(strings.NewReader(sampleOutput), all[0], sqlite)
			got := ""
			if err := r.verdict(all, row.ci); err != nil {
				got = err.Error()
			}
			if got != row.want {
				t.Errorf("the verdict is %q, want %q", got, row.want)
			}
			if table := r.table(all); !strings.Contains(table, "| one wins | 50 tasks, one each | – | `TestWinner` in `a` |") {
				t.Errorf("the table is\n%s", table)
			}
		})
	}
}

// TestSelectClaims: a claim that there is none of is refused.
func TestSelectClaims(t *testing.T) {
	t.Parallel()
	picked, err := selectClaims(testRuns(), "kill,backup")
	if err != nil || len(picked) != 1 || picked[0].testPattern(sqlite) != "^(TestKill|TestBackup)$" || picked[0].testPattern(postgres) != "^(TestKill)$" {
		t.Errorf("picked %v, %v", picked, err)
	}
	if _, err := selectClaims(testRuns(), "kill,nothing"); err == nil || !strings.Contains(err.Error(), `"nothing"`) {
		t.Errorf("a claim that there is none of: %v", err)
	}
}

// TestClaimRunner_command: a test gets as many walks as there is of a night, fewer on PostgreSQL,
// which it is told of.
func TestClaimRunner_command(t *testing.T) {
	t.Parallel()
	r := testRun{pkg: "./compat", rapidChecks: 250, claims: []claimSpec{{"model", "as the model says", "TestWalk", bothEngines}}}
	for _, row := range []struct {
		night float64
		on    engine
		walks string
	}{
		{0, sqlite, "250"}, {0, postgres, "15"}, {1, sqlite, "10000"}, {0.1, postgres, "62"}, {0.001, sqlite, "250"},
	} {
		w := &claimRunner{longShare: row.night, binDir: "/programs", env: []string{"OF=all"}, postgresEnv: []string{"ONLY=postgres"}}
		cmd := w.command(t.Context(), r, row.on)
		if !slices.Contains(cmd.Args, "-rapid.checks="+row.walks) || cmd.Path != "/programs/compat.test" || cmd.Dir != "./compat" ||
			!slices.Contains(cmd.Env, "OF=all") || slices.Contains(cmd.Env, "ONLY=postgres") != (row.on == postgres) {
			t.Errorf("on %s with %g of a night: %s %q in %s", row.on, row.night, cmd.Path, cmd.Args, cmd.Dir)
		}
	}
}

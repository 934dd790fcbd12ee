package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"agentmarket.space/server/internal/test/testutil"
)

const sampleOutput = `=== RUN   TestConcurrentAccept
    concurrent_accept_test.go:31: trust: winner: 50 tasks, one each
--- PASS: TestConcurrentAccept (1.0s)
--- SKIP: TestKill (0.0s)
PASS
`

// TestVerdict: claims that failed or have no measurement are errors. A skipped test is
// accepted outside CI.
func TestVerdict(t *testing.T) {
	t.Parallel()
	winner := claim{"winner", "One wins.", "TestConcurrentAccept", sqlite, noEngine}
	kill := claim{"kill", "Nothing is lost.", "TestKill", sqlite, noEngine}
	backup := claim{"backup", "It is complete.", "TestBackup", bothEngines, noEngine}
	for name, row := range map[string]struct {
		claims []claim
		failed []string
		ci     bool
		want   string
	}{
		"all measured":       {[]claim{winner}, nil, true, ""},
		"skipped outside CI": {[]claim{winner, kill}, nil, false, ""},
		"skipped in CI":      {[]claim{winner, kill}, nil, true, "kill has no measurement on SQLite"},
		"no measurement":     {[]claim{winner, backup}, nil, false, "backup has no measurement on SQLite; backup has no measurement on PostgreSQL"},
		"measured but fails": {[]claim{winner}, []string{"./a on SQLite"}, false, "./a on SQLite failed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runs := []testRun{{pkg: "./a", claims: row.claims}}
			r := &results{measurements: map[claimOnEngine]string{}, skipped: map[claimOnEngine]bool{}, failed: row.failed, out: io.Discard}
			r.parseOutput(strings.NewReader(sampleOutput), runs[0], sqlite)
			got := ""
			if err := r.verdict(runs, row.ci); err != nil {
				got = err.Error()
			}
			testutil.Equal(t, "verdict", got, row.want)
			if table := r.table(runs); !strings.Contains(table, "| One wins. | 50 tasks, one each | – | `TestConcurrentAccept` in `a` |") {
				t.Errorf("the table is\n%s", table)
			}
		})
	}
}

func TestSelectClaims(t *testing.T) {
	t.Parallel()
	selected, err := selectClaims(testRuns(), "kill,backup")
	if err != nil || len(selected) != 1 || selected[0].testPattern(sqlite) != "^(TestKill|TestBackup)$" || selected[0].testPattern(postgres) != "^(TestKill)$" {
		t.Errorf("selected %v, %v", selected, err)
	}
	if _, err := selectClaims(testRuns(), "kill,nothing"); err == nil || !strings.Contains(err.Error(), `"nothing"`) {
		t.Errorf("an unknown claim: %v", err)
	}
}

// TestGateRuns: the gate leaves out a claim on an engine only if make test runs its test
// there.
func TestGateRuns(t *testing.T) {
	t.Parallel()
	gate := map[string]engine{}
	for _, r := range gateRuns(testRuns()) {
		for _, c := range r.claims {
			gate[c.name] = c.engines
		}
	}
	testutil.Equal(t, "engines of kill in the gate", gate["kill"], postgres)
	testutil.Equal(t, "engines of failpoints in the gate", gate["failpoints"], bothEngines)
	testutil.Equal(t, "engines of backup in the gate", gate["backup"], noEngine)

	makefile, err := os.ReadFile("../../../Makefile")
	testutil.Must(t, err)
	_, rest, found := strings.Cut(string(makefile), "POSTGRES ?= ")
	line, _, _ := strings.Cut(rest, "\n")
	if !found {
		t.Fatal("the Makefile has no list of packages in POSTGRES")
	}
	onPostgres := strings.Fields(line)
	for _, r := range testRuns() {
		skipped := testsOfTrustOnly(t, filepath.Join("../../..", r.pkg))
		for _, c := range r.claims {
			if c.inTest != noEngine && skipped[c.test] {
				t.Errorf("%s: make test skips %s: set inTest to noEngine", c.name, c.test)
			}
			if c.inTest&postgres != 0 && !slices.Contains(onPostgres, r.pkg) {
				t.Errorf("%s: make test does not run %s on PostgreSQL: set inTest to sqlite", c.name, r.pkg)
			}
		}
	}
}

// testsOfTrustOnly returns the tests of a folder that call trusttest.SkipUnlessTrust.
func testsOfTrustOnly(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	testutil.Must(t, err)
	found := map[string]bool{}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		testutil.Must(t, err)
		for _, decl := range parsed.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "SkipUnlessTrust" {
					found[fn.Name.Name] = true
				}
				return true
			})
		}
	}
	return found
}

// TestClaimRunner_command: the number of checks grows with the share of a long run and is
// smaller on PostgreSQL.
func TestClaimRunner_command(t *testing.T) {
	t.Parallel()
	r := testRun{pkg: "./compat", rapidChecks: 250, claims: []claim{{"model", "Matches the model.", "TestModel", bothEngines, noEngine}}}
	for _, row := range []struct {
		longShare float64
		on        engine
		checks    string
	}{
		{0, sqlite, "250"}, {0, postgres, "15"}, {1, sqlite, "10000"}, {0.1, postgres, "62"}, {0.001, sqlite, "250"},
	} {
		w := &claimRunner{longShare: row.longShare, binDir: "/programs", env: []string{"OF=all"}, postgresEnv: []string{"ONLY=postgres"}}
		cmd := w.command(t.Context(), r, row.on)
		if !slices.Contains(cmd.Args, "-rapid.checks="+row.checks) || cmd.Path != "/programs/compat.test" || cmd.Dir != "./compat" ||
			!slices.Contains(cmd.Env, "OF=all") || slices.Contains(cmd.Env, "ONLY=postgres") != (row.on == postgres) {
			t.Errorf("on %s with share %g: %s %q in %s", row.on, row.longShare, cmd.Path, cmd.Args, cmd.Dir)
		}
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"agentmarket.space/server/internal/test/services/localserver"
	"agentmarket.space/server/internal/test/trust/trusttest"
)

// maxParallelRuns is how many runs go on beside each other. The claims wait for disks and for
// each other, and on PostgreSQL for what is silent to be taken for gone: three fill two
// cores.
const maxParallelRuns = 3

// Of walks a night takes so many times as many, and PostgreSQL so few: there each
// law after each step is a round trip.
const (
	longCheckFactor      = 40
	postgresCheckDivisor = 16
)

// claimRunner is where claims are shown: programs that are built once, and the services.
type claimRunner struct {
	longShare    float64  // how much of one; 0 for none
	binDir       string   // where the programs are
	env          []string // of every test
	postgresEnv  []string // of those on PostgreSQL besides; nil without it
	stopServices func() error
}

// setUp builds the program and the tests, and starts the engines if a claim is to
// be shown on them. Where they cannot be had their claims are skipped.
func (w *claimRunner) setUp(ctx context.Context, wanted []testRun, all *results) (err error) {
	if w.binDir, err = os.MkdirTemp("", "agentmarket-trust-"); err != nil {
		return err
	}
	server, failing := filepath.Join(w.binDir, "agentmarket"), filepath.Join(w.binDir, "failpoints")
	w.env = []string{trusttest.TrustEnv + "=1", trusttest.BinaryEnv + "=" + server, trusttest.FailpointsBinaryEnv + "=" + failing}
	if w.longShare > 0 {
		w.env = append(w.env, trusttest.LongEnv+"="+strconv.FormatFloat(w.longShare, 'g', -1, 64))
	}
	var packages []string
	builds := [][]string{{"build", "-o", server, "."}}
	for _, r := range wanted {
		packages = append(packages, r.pkg)
		if strings.Contains(r.testPattern(bothEngines), "TestFailpoints") {
			builds = append(builds, []string{"build", "-tags", "failpoints", "-o", failing, "."})
		}
	}
	slices.Sort(packages)
	builds = append(builds, append([]string{"test", "-c", "-vet=off", "-o", w.binDir + string(filepath.Separator)}, slices.Compact(packages)...))
	for _, args := range builds {
		if text, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w\n%s", args[0], err, text)
		}
	}
	if !slices.ContainsFunc(wanted, func(r testRun) bool { return r.testPattern(postgres) != "" }) {
		return nil
	}
	w.postgresEnv, w.stopServices, err = localserver.StartAll(ctx)
	if err != nil && os.Getenv("CI") == "" && len(localserver.MissingPackages()) > 0 {
		all.printf("trust: nothing is shown on PostgreSQL: %v\n", err)
		return nil
	}
	return err
}

// cleanUp stops and removes what was set up.
func (w *claimRunner) cleanUp() (err error) {
	if w.stopServices != nil {
		err = w.stopServices()
	}
	return errors.Join(err, os.RemoveAll(w.binDir))
}

// runAll has all tests run: those of runs that are not to be alone beside each other,
// and then the rest.
func (w *claimRunner) runAll(ctx context.Context, wanted []testRun, all *results) {
	var beside sync.WaitGroup
	lane := make(chan struct{}, maxParallelRuns)
	for r, on := range runsByEngine(wanted, false) {
		lane <- struct{}{}
		beside.Go(func() {
			defer func() { <-lane }()
			w.runOnEngine(ctx, r, on, all)
		})
	}
	beside.Wait()
	for r, on := range runsByEngine(wanted, true) {
		w.runOnEngine(ctx, r, on, all)
	}
}

// runsByEngine is the runs that are alone, or the others, on each engine that they have tests on.
func runsByEngine(wanted []testRun, alone bool) iter.Seq2[testRun, engine] {
	return func(yield func(testRun, engine) bool) {
		for _, r := range wanted {
			for _, on := range []engine{sqlite, postgres} {
				if r.exclusive == alone && r.testPattern(on) != "" && !yield(r, on) {
					return
				}
			}
		}
	}
}

func (w *claimRunner) runOnEngine(ctx context.Context, r testRun, on engine, all *results) {
	if on == postgres && w.postgresEnv == nil {
		all.markSkipped(r, on, "")
		return
	}
	all.runTests(ctx, w.command(ctx, r, on), r, on)
}

// command is what runs the tests of a run on an engine.
func (w *claimRunner) command(ctx context.Context, r testRun, on engine) *exec.Cmd {
	limit, walks := "10m", r.rapidChecks
	if w.longShare > 0 {
		limit, walks = "6h", max(walks, int(w.longShare*longCheckFactor*float64(walks)))
	}
	args := []string{"-test.count=1", "-test.v", "-test.parallel=4", "-test.timeout=" + limit, "-test.run=" + r.testPattern(on)}
	env := slices.Concat(os.Environ(), w.env)
	if on == postgres {
		walks, env = walks/postgresCheckDivisor, append(env, w.postgresEnv...)
	}
	if walks > 0 {
		args = append(args, fmt.Sprintf("-rapid.checks=%d", walks))
	}
	if walks > 0 && w.longShare == 0 {
		args = append(args, "-rapid.steps=20") // of rapid's own 30, which a night has time for
	}
	cmd := exec.CommandContext(ctx, filepath.Join(w.binDir, filepath.Base(r.pkg)+".test"), args...)
	cmd.Dir, cmd.Env = r.pkg, env
	return cmd
}

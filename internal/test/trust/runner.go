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

// maxParallelRuns is how many runs are executed at once. Tests often wait for the disk,
// and on PostgreSQL for leases to expire: three keep two cores busy.
const maxParallelRuns = 3

// A long run checks each property longCheckFactor times as often. PostgreSQL checks it
// 1/postgresCheckDivisor as often, because verifying a step takes several round trips.
const (
	longCheckFactor      = 40
	postgresCheckDivisor = 16
)

// claimRunner holds the binaries and services with which the tests run.
type claimRunner struct {
	longShare   float64  // fraction of a long run; 0 for a short one
	binDir      string   // folder of the test binaries
	env         []string // for every test
	postgresEnv []string // added on PostgreSQL; nil if it is not available
	servers     *localserver.Servers
}

// setUp builds the server and the tests, and starts PostgreSQL and NATS if a claim needs
// them. If they cannot be installed, claims on PostgreSQL are skipped, except in CI.
func (w *claimRunner) setUp(ctx context.Context, runs []testRun, res *results) (err error) {
	if w.binDir, err = os.MkdirTemp("", "agentmarket-trust-"); err != nil {
		return err
	}
	server, failpointServer := os.Getenv(trusttest.BinaryEnv), filepath.Join(w.binDir, "failpoints")
	var builds [][]string
	if server == "" {
		server = filepath.Join(w.binDir, "agentmarket")
		builds = append(builds, []string{"build", "-o", server, "."})
	}
	w.env = []string{trusttest.TrustEnv + "=1", trusttest.BinaryEnv + "=" + server, trusttest.FailpointsBinaryEnv + "=" + failpointServer}
	if w.longShare > 0 {
		w.env = append(w.env, trusttest.LongEnv+"="+strconv.FormatFloat(w.longShare, 'g', -1, 64))
	}
	var packages []string
	for _, r := range runs {
		packages = append(packages, r.pkg)
		if strings.Contains(r.testPattern(bothEngines), "TestFailpoints") {
			builds = append(builds, []string{"build", "-tags", "failpoints", "-o", failpointServer, "."})
		}
	}
	slices.Sort(packages)
	builds = append(builds, append([]string{"test", "-c", "-vet=off", "-o", w.binDir + string(filepath.Separator)}, slices.Compact(packages)...))
	for _, args := range builds {
		if text, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w\n%s", args[0], err, text)
		}
	}
	if !slices.ContainsFunc(runs, func(r testRun) bool { return r.testPattern(postgres) != "" }) {
		return nil
	}
	w.servers, err = localserver.StartAll(ctx)
	if err != nil && os.Getenv("CI") == "" && len(localserver.MissingPackages()) > 0 {
		res.printf("trust: skipping PostgreSQL: %v\n", err)
		return nil
	}
	if err == nil {
		w.postgresEnv = w.servers.TestEnv()
	}
	return err
}

// cleanUp stops the services and removes the binaries.
func (w *claimRunner) cleanUp() (err error) {
	if w.servers != nil {
		err = w.servers.Stop()
	}
	return errors.Join(err, os.RemoveAll(w.binDir))
}

// runAll executes the runs: first those that may run in parallel, then the exclusive ones
// one after another.
func (w *claimRunner) runAll(ctx context.Context, runs []testRun, res *results) {
	var group sync.WaitGroup
	slots := make(chan struct{}, maxParallelRuns)
	for r, on := range runsByEngine(runs, false) {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			w.runOnEngine(ctx, r, on, res)
		})
	}
	group.Wait()
	for r, on := range runsByEngine(runs, true) {
		w.runOnEngine(ctx, r, on, res)
	}
}

// runsByEngine iterates over the exclusive runs, or the others, with each engine on which
// they have tests.
func runsByEngine(runs []testRun, exclusive bool) iter.Seq2[testRun, engine] {
	return func(yield func(testRun, engine) bool) {
		for _, r := range runs {
			for _, on := range []engine{sqlite, postgres} {
				if r.exclusive == exclusive && r.testPattern(on) != "" && !yield(r, on) {
					return
				}
			}
		}
	}
}

func (w *claimRunner) runOnEngine(ctx context.Context, r testRun, on engine, res *results) {
	if on == postgres && w.postgresEnv == nil {
		res.markSkipped(r, on, "")
		return
	}
	res.runTests(ctx, w.command(ctx, r, on), r, on)
}

// command returns the command that executes a run on an engine.
func (w *claimRunner) command(ctx context.Context, r testRun, on engine) *exec.Cmd {
	timeout, checks := "10m", r.rapidChecks
	if w.longShare > 0 {
		timeout, checks = "6h", max(checks, int(w.longShare*longCheckFactor*float64(checks)))
	}
	args := []string{"-test.count=1", "-test.v", "-test.parallel=4", "-test.timeout=" + timeout, "-test.run=" + r.testPattern(on)}
	env := slices.Concat(os.Environ(), w.env)
	if on == postgres {
		checks, env = checks/postgresCheckDivisor, append(env, w.postgresEnv...)
	}
	if checks > 0 {
		args = append(args, fmt.Sprintf("-rapid.checks=%d", checks))
	}
	if checks > 0 && w.longShare == 0 {
		args = append(args, "-rapid.steps=20") // rapid's default is 30
	}
	cmd := exec.CommandContext(ctx, filepath.Join(w.binDir, filepath.Base(r.pkg)+".test"), args...)
	cmd.Dir, cmd.Env = r.pkg, env
	return cmd
}

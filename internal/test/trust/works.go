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

	"agentmarket.space/server/internal/test/services/private"
	"agentmarket.space/server/internal/test/trust/claim"
)

// lanes is how many runs go on beside each other. The claims wait for disks and for
// each other, and on PostgreSQL for what is silent to be taken for gone: three fill two
// cores.
const lanes = 3

// Of walks a night takes so many times as many, and PostgreSQL so few: there each
// law after each step is a round trip.
const (
	walksOfANight   = 40
	walksOnPostgres = 16
)

// works is where claims are shown: programs that are built once, and the services.
type works struct {
	night    float64  // how much of one; 0 for none
	dir      string   // where the programs are
	env      []string // of every test
	postgres []string // of those on PostgreSQL besides; nil without it
	stop     func() error
}

// setUp builds the program and the tests, and starts the engines if a claim is to
// be shown on them. Where they cannot be had their claims are skipped.
func (w *works) setUp(ctx context.Context, wanted []run, all *results) (err error) {
	if w.dir, err = os.MkdirTemp("", "agentmarket-trust-"); err != nil {
		return err
	}
	server, failing := filepath.Join(w.dir, "agentmarket"), filepath.Join(w.dir, "failpoints")
	w.env = []string{claim.Proved + "=1", claim.Program + "=" + server, claim.Failpoints + "=" + failing}
	if w.night > 0 {
		w.env = append(w.env, claim.Long+"="+strconv.FormatFloat(w.night, 'g', -1, 64))
	}
	var packages []string
	builds := [][]string{{"build", "-o", server, "."}}
	for _, r := range wanted {
		packages = append(packages, r.pkg)
		if strings.Contains(r.tests(both), "TestFailpoints") {
			builds = append(builds, []string{"build", "-tags", "failpoints", "-o", failing, "."})
		}
	}
	slices.Sort(packages)
	builds = append(builds, append([]string{"test", "-c", "-vet=off", "-o", w.dir + string(filepath.Separator)}, slices.Compact(packages)...))
	for _, args := range builds {
		if text, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w\n%s", args[0], err, text)
		}
	}
	if !slices.ContainsFunc(wanted, func(r run) bool { return r.tests(postgres) != "" }) {
		return nil
	}
	w.postgres, w.stop, err = private.Serve(ctx)
	if err != nil && os.Getenv("CI") == "" && len(private.Missing()) > 0 {
		all.say("trust: nothing is shown on PostgreSQL: %v\n", err)
		return nil
	}
	return err
}

// clear stops and removes what was set up.
func (w *works) clear() (err error) {
	if w.stop != nil {
		err = w.stop()
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}

// show has all tests run: those of runs that are not to be alone beside each other,
// and then the rest.
func (w *works) show(ctx context.Context, wanted []run, all *results) {
	var beside sync.WaitGroup
	lane := make(chan struct{}, lanes)
	for r, on := range each(wanted, false) {
		lane <- struct{}{}
		beside.Go(func() {
			defer func() { <-lane }()
			w.showOn(ctx, r, on, all)
		})
	}
	beside.Wait()
	for r, on := range each(wanted, true) {
		w.showOn(ctx, r, on, all)
	}
}

// each is the runs that are alone, or the others, on each engine that they have tests on.
func each(wanted []run, alone bool) iter.Seq2[run, engine] {
	return func(yield func(run, engine) bool) {
		for _, r := range wanted {
			for _, on := range []engine{sqlite, postgres} {
				if r.alone == alone && r.tests(on) != "" && !yield(r, on) {
					return
				}
			}
		}
	}
}

func (w *works) showOn(ctx context.Context, r run, on engine, all *results) {
	if on == postgres && w.postgres == nil {
		all.skip(r, on, "")
		return
	}
	all.run(ctx, w.command(ctx, r, on), r, on)
}

// command is what runs the tests of a run on an engine.
func (w *works) command(ctx context.Context, r run, on engine) *exec.Cmd {
	limit, walks := "10m", r.walks
	if w.night > 0 {
		limit, walks = "6h", max(walks, int(w.night*walksOfANight*float64(walks)))
	}
	args := []string{"-test.count=1", "-test.v", "-test.parallel=4", "-test.timeout=" + limit, "-test.run=" + r.tests(on)}
	env := slices.Concat(os.Environ(), w.env)
	if on == postgres {
		walks, env = walks/walksOnPostgres, append(env, w.postgres...)
	}
	if walks > 0 {
		args = append(args, fmt.Sprintf("-rapid.checks=%d", walks))
	}
	if walks > 0 && w.night == 0 {
		args = append(args, "-rapid.steps=20") // of rapid's own 30, which a night has time for
	}
	cmd := exec.CommandContext(ctx, filepath.Join(w.dir, filepath.Base(r.pkg)+".test"), args...)
	cmd.Dir, cmd.Env = r.pkg, env
	return cmd
}

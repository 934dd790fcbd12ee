// Command trust runs the tests behind every claim of docs/reliability.md, prints the
// measurement of each, and fails if a test fails or reports no measurement.
//
//	go run ./internal/test/trust [-gate] [-long [-share 0.1]] [-only kill,winner] [-into docs/reliability.md]
//
// Run it in the root of the module, with "make trust", or "make trust-long" for -long.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := runClaims(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "trust:", err)
		os.Exit(1)
	}
}

func runClaims(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("trust", flag.ContinueOnError)
	gate := flags.Bool("gate", false, "run only the claims that make test does not verify")
	long := flags.Bool("long", false, "run for hours instead of minutes")
	share := flags.Float64("share", 1, "fraction of a long run: 0.1 is a tenth, never less than a run without -long")
	only := flags.String("only", "", "comma-separated names of the claims to run (default all)")
	into := flags.String("into", "", "document whose table is replaced; ignored with -only and -gate")
	if err := flags.Parse(args); err != nil {
		return err
	}
	runs := testRuns()
	if *gate {
		runs = gateRuns(runs)
	}
	runs, err := selectClaims(runs, *only)
	if err != nil {
		return err
	}
	start, res := time.Now(), &results{measurements: map[claimOnEngine]string{}, skipped: map[claimOnEngine]bool{}, out: out}
	runner := &claimRunner{}
	if *long {
		runner.longShare = *share
	}
	if err := runner.setUp(ctx, runs, res); err != nil {
		return errors.Join(err, runner.cleanUp())
	}
	runner.runAll(ctx, runs, res)
	if err := runner.cleanUp(); err != nil {
		return err
	}
	report := describeEnvironment(ctx, start, runner.longShare) + "\n" + res.table(runs)
	if _, err := io.WriteString(out, "\n"+report); err != nil {
		return err
	}
	if *into != "" && *only == "" && !*gate {
		err = replaceTable(*into, report)
	}
	return errors.Join(err, res.verdict(runs, os.Getenv("CI") != ""))
}

// gateCheckDivisor reduces the checks of each property test in the gate.
const gateCheckDivisor = 3

// gateRuns returns the claims that make test does not verify, each on the engines that
// are left, with fewer checks.
func gateRuns(runs []testRun) (left []testRun) {
	for _, r := range runs {
		claims := r.claims
		r.claims, r.rapidChecks = nil, r.rapidChecks/gateCheckDivisor
		for _, c := range claims {
			if c.engines &^= c.inTest; c.engines != noEngine {
				r.claims = append(r.claims, c)
			}
		}
		if r.claims != nil {
			left = append(left, r)
		}
	}
	return left
}

// selectClaims returns the runs with the named claims only, or all runs if only is empty.
func selectClaims(runs []testRun, only string) (selected []testRun, err error) {
	if only == "" {
		return runs, nil
	}
	names := map[string]bool{}
	for name := range strings.SplitSeq(only, ",") {
		names[name] = true
	}
	for _, r := range runs {
		claims := r.claims
		r.claims = nil
		for _, c := range claims {
			if names[c.name] {
				r.claims = append(r.claims, c)
				delete(names, c.name)
			}
		}
		if r.claims != nil {
			selected = append(selected, r)
		}
	}
	for name := range names {
		err = errors.Join(err, fmt.Errorf("unknown claim %q", name))
	}
	return selected, err
}

// testPattern returns the -test.run pattern of the run's tests on an engine, or "" if it
// has none there.
func (r testRun) testPattern(on engine) string {
	var names []string
	for _, c := range r.claims {
		if c.engines&on != 0 {
			names = append(names, c.test)
		}
	}
	if names == nil {
		return ""
	}
	return "^(" + strings.Join(names, "|") + ")$"
}

// describeEnvironment returns one line with the command, commit, date, machine and
// duration of the run.
func describeEnvironment(ctx context.Context, start time.Time, longShare float64) string {
	commit, command := "not committed", "make trust"
	if text, err := exec.CommandContext(context.WithoutCancel(ctx), "git", "describe", "--always", "--dirty").Output(); err == nil {
		commit = strings.TrimSpace(string(text))
	}
	if longShare > 0 {
		command = fmt.Sprintf("go run ./internal/test/trust -long -share %g", longShare)
	}
	return fmt.Sprintf("`%s` at commit %s, %s, %d cores (%s), %s, in %s, with the cores busy for %s.\n",
		command, commit, start.UTC().Format(time.DateOnly), runtime.NumCPU(), cpuModel(), runtime.Version(),
		time.Since(start).Round(time.Second), (childCPUTime() / time.Duration(runtime.NumCPU())).Round(time.Second))
}

// childCPUTime returns the CPU time of all finished child processes.
func childCPUTime() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_CHILDREN, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// cpuModel returns the name of the CPU, or its architecture if the system does not say.
func cpuModel() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	_, rest, _ := strings.Cut(string(text), "model name")
	line, _, _ := strings.Cut(rest, "\n")
	if name := strings.Trim(line, " \t:"); name != "" {
		return name
	}
	return runtime.GOARCH
}

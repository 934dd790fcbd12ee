// Command trust runs the tests behind every promise of docs/reliability.md,
// prints the figure of each and fails when one fails or has none.
//
//	go run ./internal/trust [-long [-share 0.1]] [-only kill,winner] [-into docs/reliability.md]
//
// It is "make trust", in the root of the module; -long is "make trust-long".
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
	long := flags.Bool("long", false, "as much as a night allows, not as five minutes do")
	share := flags.Float64("share", 1, "of a night so much: 0.1 is a tenth, and never less than without -long")
	only := flags.String("only", "", "the claims to show, with commas (default all)")
	into := flags.String("into", "", "document in which the table is replaced, besides printing it")
	if err := flags.Parse(args); err != nil {
		return err
	}
	wanted, err := selectClaims(testRuns(), *only)
	if err != nil {
		return err
	}
	began, all := time.Now(), &results{measurements: map[claimOnEngine]string{}, skipped: map[claimOnEngine]bool{}, out: out}
	w := &claimRunner{}
	if *long {
		w.longShare = *share
	}
	if err := w.setUp(ctx, wanted, all); err != nil {
		return errors.Join(err, w.cleanUp())
	}
	w.runAll(ctx, wanted, all)
	if err := w.cleanUp(); err != nil {
		return err
	}
	report := describeEnvironment(ctx, began, w.longShare) + "\n" + all.table(wanted)
	if _, err := io.WriteString(out, "\n"+report); err != nil {
		return err
	}
	if *into != "" && *only == "" {
		err = replaceTable(*into, report)
	}
	return errors.Join(err, all.verdict(wanted, os.Getenv("CI") != ""))
}

// selectClaims leaves the claims that are asked for; all when none is.
func selectClaims(all []testRun, only string) (picked []testRun, err error) {
	if only == "" {
		return all, nil
	}
	names := map[string]bool{}
	for name := range strings.SplitSeq(only, ",") {
		names[name] = true
	}
	for _, r := range all {
		claims := r.claims
		r.claims = nil
		for _, c := range claims {
			if names[c.name] {
				r.claims = append(r.claims, c)
				delete(names, c.name)
			}
		}
		if r.claims != nil {
			picked = append(picked, r)
		}
	}
	for name := range names {
		err = errors.Join(err, fmt.Errorf("there is no claim %q", name))
	}
	return picked, err
}

// testPattern is the pattern of the tests that a run has on an engine, empty when it
// has none.
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

// describeEnvironment says what was shown where, and what it took, in a line; also of what
// was cut short.
func describeEnvironment(ctx context.Context, began time.Time, night float64) string {
	commit, target := "not committed", "make trust"
	if text, err := exec.CommandContext(context.WithoutCancel(ctx), "git", "describe", "--always", "--dirty").Output(); err == nil {
		commit = strings.TrimSpace(string(text))
	}
	if night > 0 {
		target = fmt.Sprintf("go run ./internal/trust -long -share %g", night)
	}
	return fmt.Sprintf("`%s` at commit %s, %s, %d cores (%s), %s, in %s, of which the cores worked %s.\n",
		target, commit, began.UTC().Format(time.DateOnly), runtime.NumCPU(), cpuModel(), runtime.Version(),
		time.Since(began).Round(time.Second), (childCPUTime() / time.Duration(runtime.NumCPU())).Round(time.Second))
}

// childCPUTime is the processor time of all that was run.
func childCPUTime() time.Duration {
	var used syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_CHILDREN, &used) != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// cpuModel is the model that the system names.
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

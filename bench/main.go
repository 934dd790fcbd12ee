// Command bench measures the product against the servers that somebody might
// build instead, and prints how many times faster it is.
//
//	go run . [-rounds 5] [-duration 3s] [-only post,read,list,fan-out] [-into ../docs/performance.md]
//
// It builds the product and the baseline, starts them on free ports of
// 127.0.0.1 with databases of their own, and measures them alternately: the
// same requests, the same minute, the same machine. Absolute figures differ
// from machine to machine and from minute to minute; the ratios of neighbouring
// runs do so far less, and are what to look at. A server that answers wrongly,
// loses an event or delivers one twice gets no figures, and the program ends
// with 1.
//
// It knows of the product only what any client does: its address, GraphQL,
// REST and WebSocket.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench is one run of the program.
type bench struct {
	productBinary, baselineBinary string

	rounds      int
	duration    time.Duration
	connections int
	subscribers int
	only        []string

	others []float64 // cores that other programs used, by sample
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	b := &bench{}
	source := flags.String("source", "..", "folder of the product's main package")
	flags.StringVar(&b.productBinary, "binary", "", "product that is built already, in place of -source")
	flags.IntVar(&b.rounds, "rounds", 5, "how often each server is measured, alternately")
	flags.DurationVar(&b.duration, "duration", 3*time.Second, "how long requests are sent in one round")
	flags.IntVar(&b.connections, "connections", 32, "connections that send requests")
	flags.IntVar(&b.subscribers, "subscribers", 1000, "live subscribers of the fan-out")
	only := flags.String("only", "", "works to measure, with commas: post, read, list, fan-out (default all)")
	into := flags.String("into", "", "document in which the table is replaced, besides printing it")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *only != "" {
		b.only = strings.Split(*only, ",")
	}
	dir, err := os.MkdirTemp("", "bench-build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	if err := b.build(ctx, *source, dir); err != nil {
		return err
	}
	if err := raiseOpenFiles(); err != nil {
		return err
	}
	rows, err := b.measure(ctx)
	if err != nil {
		return err
	}
	report := b.circumstances(ctx, *source) + "\n" + markdown(rows)
	if _, err := io.WriteString(os.Stdout, report); err != nil {
		return err
	}
	if *into != "" {
		if err := rewrite(*into, report); err != nil {
			return err
		}
	}
	return failures(rows)
}

// build makes both programs, unless the product is there.
func (b *bench) build(ctx context.Context, source, dir string) (err error) {
	compile := func(folder, target, pkg string) (string, error) {
		output := filepath.Join(dir, target)
		cmd := exec.CommandContext(ctx, "go", "build", "-C", folder, "-o", output, pkg)
		if text, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w: %s", target, err, text)
		}
		return output, nil
	}
	if b.baselineBinary, err = compile(".", "baseline", "./baseline"); err != nil {
		return err
	}
	if b.productBinary != "" {
		b.productBinary, err = filepath.Abs(b.productBinary)
		return err
	}
	b.productBinary, err = compile(source, "agentmarket", ".")
	return err
}

// measure runs the experiments asked for.
func (b *bench) measure(ctx context.Context) ([]row, error) {
	var rows []row
	for _, e := range b.experiments() {
		if len(b.only) > 0 && !slices.Contains(b.only, e.works[0].name) {
			continue
		}
		done, err := b.alternate(ctx, e)
		if err != nil {
			return nil, err
		}
		rows = append(rows, done...)
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("no work is called %q", b.only)
	}
	return rows, nil
}

// alternate measures every contender once a round. A contender that fails is
// left out from then on; the error returned is that the run was interrupted.
func (b *bench) alternate(ctx context.Context, e experiment) ([]row, error) {
	samples := make([][][]sample, len(e.contenders)) // by contender, round, work
	failed := make([]error, len(e.contenders))
	measures := make([]measure, len(e.contenders))
	for i, c := range e.contenders {
		measure, stop, err := c.start(ctx)
		if err != nil {
			failed[i] = err
			continue
		}
		defer stop()
		measures[i] = measure
	}
	for round := range b.rounds {
		for turn := range e.contenders {
			i := turn
			if round%2 == 1 { // the other way round, that none is always first
				i = len(e.contenders) - 1 - turn
			}
			if failed[i] != nil {
				continue
			}
			got, err := measures[i](ctx)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err != nil {
				failed[i] = err
				slog.Warn("refused", slog.String("work", e.works[0].name), slog.String("server", e.contenders[i].name), slog.Any("error", err))
				continue
			}
			samples[i] = append(samples[i], got)
			slog.Info("measured", slog.String("work", e.works[0].name), slog.Int("round", round+1),
				slog.String("server", e.contenders[i].name), slog.String("figure", digits(got[0].figure)+e.works[0].unit))
		}
	}
	return e.rows(samples, failed), nil
}

// rows sorts the samples by work.
func (e experiment) rows(samples [][][]sample, failed []error) []row {
	var rows []row
	base := len(e.contenders) - 1
	for w, work := range e.works {
		for i, c := range e.contenders {
			r := row{work: work, contender: c.name, samples: column(samples[i], w), failure: failed[i]}
			if i > 0 {
				r.work.goal = "" // it is the first one's
			}
			if i != base {
				r.baseline = column(samples[base], w)
			}
			rows = append(rows, r)
		}
	}
	return rows
}

func column(rounds [][]sample, work int) []sample {
	samples := []sample{}
	for _, round := range rounds {
		samples = append(samples, round[work])
	}
	return samples
}

// failures tells of each contender that was refused, once.
func failures(rows []row) error {
	var errs []error
	for _, r := range rows {
		if r.failure != nil && !slices.ContainsFunc(errs, func(err error) bool { return errors.Is(err, r.failure) }) {
			errs = append(errs, fmt.Errorf("%s, %s: %w", r.work.name, r.contender, r.failure))
		}
	}
	return errors.Join(errs...)
}

// rewrite puts the report into a document.
func rewrite(file, report string) error {
	document, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text, err := replaceTable(string(document), report)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

// circumstances says what was measured where, in a few lines.
func (b *bench) circumstances(ctx context.Context, source string) string {
	commit := "not committed"
	if text, err := exec.CommandContext(ctx, "git", "-C", source, "describe", "--always", "--dirty").Output(); err == nil {
		commit = strings.TrimSpace(string(text))
	}
	others := spreadOf(b.others)
	return fmt.Sprintf("Commit %s, %s, %s, %s. %d rounds of %s, %d connections, %d subscribers. "+
		"Load generator and server shared the machine; other programs used %.2f cores meanwhile (at most %.2f).\n",
		commit, time.Now().UTC().Format(time.DateOnly), machine(), runtime.Version(),
		b.rounds, b.duration, b.connections, b.subscribers, others.median, others.high)
}

// Command bench compares the product with servers built in other ways and prints how many
// times faster it is.
//
//	go run . [-peers] [-rounds 3] [-duration 2s] [-only post,read,list,fan-out] [-into ../docs/performance.md]
//	go run . -only growth [-postgres postgres://user@host/empty]
//
// It builds the product and the baseline, with -peers also Mercurius and PocketBase, starts
// them on free ports of 127.0.0.1 with their own databases, and measures them in
// alternation with the same requests on the same machine. Absolute figures vary between
// machines and minutes; the ratios of neighbouring samples vary much less. A server that
// returns a wrong response, loses an event or delivers one twice gets no figures, and the
// program exits with 1.
//
// It uses the product over GraphQL, REST and WebSocket only.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
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
	mercurius, pocketbase         commandFunc // nil if not available
	source                        string
	storesDir                     string // folder of the stores of growth experiments
	postgres                      string // address for the copy of the largest store, or ""

	rounds      int
	duration    time.Duration
	connections int
	subscribers int
	only        []string

	generatorCores, otherCores []float64 // cores used by the benchmark and by other programs, by sample
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	b := &bench{}
	flags.StringVar(&b.source, "source", "..", "folder of the product's main package")
	flags.StringVar(&b.productBinary, "binary", "", "product that is built already, in place of -source")
	flags.IntVar(&b.rounds, "rounds", 3, "how often each server is measured, alternately")
	flags.DurationVar(&b.duration, "duration", 2*time.Second, "how long requests are sent in one round")
	flags.IntVar(&b.connections, "connections", 32, "connections that send requests")
	flags.IntVar(&b.subscribers, "subscribers", 1000, "live subscribers of the fan-out; it is measured with five times as many too")
	flags.StringVar(&b.storesDir, "stores", "", "folder that growth keeps its filled stores in and finds them again; without one they are removed")
	flags.StringVar(&b.postgres, "postgres", "", "address of an empty PostgreSQL database; growth copies its largest store to it and measures it there too")
	peers := flags.Bool("peers", false, "measure Mercurius and PocketBase too; the first time they are fetched and compiled, which takes minutes")
	only := flags.String("only", "", "workloads to measure, as comma-separated prefixes of their names: post, read, list, fan-out, webhook, idle, growth (default all but growth)")
	into := flags.String("into", "", "document whose table is replaced by the report")
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
	if err := b.build(ctx, dir); err != nil {
		return err
	}
	if *peers {
		b.buildPeers(ctx, dir)
	}
	if b.storesDir == "" {
		b.storesDir = dir
	}
	if b.storesDir, err = filepath.Abs(b.storesDir); err != nil {
		return err
	}
	if err := raiseOpenFileLimit(); err != nil {
		return err
	}
	rows, err := b.measure(ctx)
	if err != nil {
		return err
	}
	report := b.describeRun(ctx) + "\n" + markdown(rows)
	if _, err := io.WriteString(os.Stdout, report); err != nil {
		return err
	}
	if *into != "" {
		if err := rewriteDocument(*into, report); err != nil {
			return err
		}
	}
	return contenderErrors(rows)
}

// build compiles the baseline, and the product unless a binary is given.
func (b *bench) build(ctx context.Context, dir string) (err error) {
	if b.baselineBinary, err = compile(ctx, ".", dir, "baseline", "./baseline"); err != nil {
		return err
	}
	if b.productBinary != "" {
		b.productBinary, err = filepath.Abs(b.productBinary)
		return err
	}
	b.productBinary, err = compile(ctx, b.source, dir, "agentmarket", ".")
	return err
}

// compile builds a package of a module and returns the path of the program.
func compile(ctx context.Context, folder, dir, name, pkg string) (string, error) {
	output := filepath.Join(dir, name)
	cmd := exec.CommandContext(ctx, "go", "build", "-C", folder, "-o", output, pkg)
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", name, err, text)
	}
	return output, nil
}

// rewriteDocument replaces the table of a document by the report.
func rewriteDocument(file, report string) error {
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

// describeRun returns the commit, the date, the machine and the load of the run.
func (b *bench) describeRun(ctx context.Context) string {
	commit := "not committed"
	if text, err := exec.CommandContext(ctx, "git", "-C", b.source, "describe", "--always", "--dirty").Output(); err == nil {
		commit = strings.TrimSpace(string(text))
	}
	generator, others := newSpread(b.generatorCores), newSpread(b.otherCores)
	return fmt.Sprintf("Commit %s, %s, %s, %s. %d rounds of %s, %d connections, %d subscribers. "+
		"Load generator and server shared the machine; the generator used %.2f cores (at most %.2f), other programs %.2f (at most %.2f).\n",
		commit, time.Now().UTC().Format(time.DateOnly), describeMachine(), runtime.Version(),
		b.rounds, b.duration, b.connections, b.subscribers, generator.median, generator.high, others.median, others.high)
}

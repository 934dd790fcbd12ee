package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"time"
)

// claimOnEngine identifies a claim on one engine.
type claimOnEngine struct {
	name string
	on   engine
}

// results collects what the tests report. It is safe for concurrent use.
type results struct {
	mu           sync.Mutex
	measurements map[claimOnEngine]string
	skipped      map[claimOnEngine]bool
	failed       []string
	out          io.Writer
}

// runTests runs the test binary and records what it reports. It prints the output of a
// failed run, and the time that each run took.
func (r *results) runTests(ctx context.Context, cmd *exec.Cmd, run testRun, on engine) {
	var text bytes.Buffer
	read, write := io.Pipe()
	cmd.Stdout = io.MultiWriter(&text, write)
	cmd.Stderr = cmd.Stdout
	start, done := time.Now(), make(chan error, 1)
	go func() {
		err := cmd.Run()
		_ = write.Close() // it never fails
		done <- err
	}()
	r.parseOutput(read, run, on)
	err := <-done
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		r.mu.Lock()
		r.failed = append(r.failed, run.pkg+" on "+on.String())
		r.mu.Unlock()
		r.printf("%s\n%v\n", text.Bytes(), err)
	}
	if s := cmd.ProcessState; s != nil {
		r.printf("trust: %s on %s took %s and %s of CPU time\n", run.pkg, on, time.Since(start).Round(time.Second), (s.UserTime() + s.SystemTime()).Round(time.Second))
	}
}

func (r *results) printf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _ = fmt.Fprintf(r.out, format, args...) // writing the report returns the error
}

// parseOutput finds measurements and skipped tests in the output of a test binary.
func (r *results) parseOutput(text io.Reader, run testRun, on engine) {
	measurement, skip := regexp.MustCompile(`trust: ([a-z-]+): (.+)`), regexp.MustCompile(`^--- SKIP: (\w+)`)
	lines := bufio.NewReader(text)
	for {
		line, err := lines.ReadString('\n')
		if match := measurement.FindStringSubmatch(line); match != nil {
			r.recordMeasurement(claimOnEngine{match[1], on}, match[2])
			r.printf("trust: %s: %s (%s)\n", match[1], match[2], on)
		}
		if match := skip.FindStringSubmatch(line); match != nil {
			r.markSkipped(run, on, match[1])
		}
		if err != nil {
			return
		}
	}
}

func (r *results) recordMeasurement(key claimOnEngine, measurement string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.measurements[key] = measurement
}

// markSkipped records that a test of a run was skipped, or all of its tests if test is "".
func (r *results) markSkipped(run testRun, on engine, test string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range run.claims {
		if test == "" || c.test == test {
			r.skipped[claimOnEngine{c.name, on}] = true
		}
	}
}

// verdict returns an error that names the runs that failed and the claims without a
// measurement. A skipped test is an error in CI only.
func (r *results) verdict(runs []testRun, ci bool) error {
	var problems []string
	for _, name := range r.failed {
		problems = append(problems, name+" failed")
	}
	for _, run := range runs {
		for _, c := range run.claims {
			for _, on := range []engine{sqlite, postgres} {
				key := claimOnEngine{c.name, on}
				if c.engines&on != 0 && r.measurements[key] == "" && (ci || !r.skipped[key]) {
					problems = append(problems, fmt.Sprintf("%s has no measurement on %s", c.name, on))
				}
			}
		}
	}
	if problems == nil {
		return nil
	}
	return errors.New(strings.Join(problems, "; "))
}

// table returns the claims with their measurements as a Markdown table.
func (r *results) table(runs []testRun) string {
	var b strings.Builder
	b.WriteString("| claim | on SQLite | on PostgreSQL | test |\n| --- | --- | --- | --- |\n")
	for _, run := range runs {
		for _, c := range run.claims {
			fmt.Fprintf(&b, "| %s | %s | %s | `%s` in `%s` |\n", c.description, r.cell(c, sqlite), r.cell(c, postgres), c.test, strings.TrimPrefix(run.pkg, "./"))
		}
	}
	return b.String()
}

func (r *results) cell(c claim, on engine) string {
	key := claimOnEngine{c.name, on}
	switch {
	case c.engines&on == 0:
		return "–"
	case r.measurements[key] != "":
		return strings.ReplaceAll(r.measurements[key], "|", "/")
	case r.skipped[key]:
		return "not run here"
	default:
		return "**not shown**"
	}
}

// String returns the name of the engine.
func (e engine) String() string {
	if e == postgres {
		return "PostgreSQL"
	}
	return "SQLite"
}

// The table of a document is between these lines.
const (
	tableStart = "<!-- trust: table begins -->\n"
	tableEnd   = "<!-- trust: table ends -->\n"
)

// replaceTable replaces the table of a document with the report.
func replaceTable(file, report string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, begins := strings.Cut(string(text), tableStart)
	_, after, ends := strings.Cut(rest, tableEnd)
	if !begins || !ends {
		return fmt.Errorf("%s has no table to replace: add the lines %q and %q", file, tableStart, tableEnd)
	}
	return os.WriteFile(file, []byte(before+tableStart+"\n"+report+"\n"+tableEnd+after), 0o644)
}

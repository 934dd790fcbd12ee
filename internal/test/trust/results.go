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

// claimOnEngine is a claim on an engine.
type claimOnEngine struct {
	name string
	on   engine
}

// results are what the tests have said. Runs write into them beside each other.
type results struct {
	mu           sync.Mutex
	measurements map[claimOnEngine]string
	skipped      map[claimOnEngine]bool
	failed       []string
	out          io.Writer
}

// runTests runs the tests of an engine and keeps what they say. What a failed one
// wrote is printed, and of each what it took.
func (r *results) runTests(ctx context.Context, cmd *exec.Cmd, of testRun, on engine) {
	var text bytes.Buffer
	read, write := io.Pipe()
	cmd.Stdout = io.MultiWriter(&text, write)
	cmd.Stderr = cmd.Stdout
	began, ended := time.Now(), make(chan error, 1)
	go func() {
		err := cmd.Run()
		_ = write.Close() // it never fails
		ended <- err
	}()
	r.parseOutput(read, of, on)
	err := <-ended
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		r.mu.Lock()
		r.failed = append(r.failed, of.pkg+" on "+on.String())
		r.mu.Unlock()
		r.printf("%s\n%v\n", text.Bytes(), err)
	}
	if s := cmd.ProcessState; s != nil {
		r.printf("trust: %s on %s took %s, and %s of a core\n", of.pkg, on, time.Since(began).Round(time.Second), (s.UserTime() + s.SystemTime()).Round(time.Second))
	}
}

// printf prints.
func (r *results) printf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _ = fmt.Fprintf(r.out, format, args...) // the report at the end says whether it can be written to
}

// parseOutput finds the figures, and the tests that were skipped, in what go test
// writes.
func (r *results) parseOutput(text io.Reader, of testRun, on engine) {
	figure, skip := regexp.MustCompile(`trust: ([a-z-]+): (.+)`), regexp.MustCompile(`^--- SKIP: (\w+)`)
	lines := bufio.NewReader(text)
	for {
		line, err := lines.ReadString('\n')
		if said := figure.FindStringSubmatch(line); said != nil {
			r.recordMeasurement(claimOnEngine{said[1], on}, said[2])
			r.printf("trust: %s: %s (%s)\n", said[1], said[2], on)
		}
		if said := skip.FindStringSubmatch(line); said != nil {
			r.markSkipped(of, on, said[1])
		}
		if err != nil {
			return
		}
	}
}

// recordMeasurement keeps the figure of a claim.
func (r *results) recordMeasurement(at claimOnEngine, figure string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.measurements[at] = figure
}

// markSkipped notes that a test was skipped; all of a run when none is named.
func (r *results) markSkipped(of testRun, on engine, test string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range of.claims {
		if test == "" || c.test == test {
			r.skipped[claimOnEngine{c.name, on}] = true
		}
	}
}

// verdict is an error that names what failed and what was not shown. What a
// machine lacks the means for is no fault, but in CI it is.
func (r *results) verdict(all []testRun, ci bool) error {
	var wrong []string
	for _, name := range r.failed {
		wrong = append(wrong, name+" failed")
	}
	for _, run := range all {
		for _, c := range run.claims {
			for _, on := range []engine{sqlite, postgres} {
				at := claimOnEngine{c.name, on}
				if c.engines&on != 0 && r.measurements[at] == "" && (ci || !r.skipped[at]) {
					wrong = append(wrong, fmt.Sprintf("%s has no figure on %s", c.name, on))
				}
			}
		}
	}
	if wrong == nil {
		return nil
	}
	return errors.New(strings.Join(wrong, "; "))
}

// table is the claims with their figures, as Markdown.
func (r *results) table(all []testRun) string {
	var b strings.Builder
	b.WriteString("| claim | on SQLite | on PostgreSQL | test |\n| --- | --- | --- | --- |\n")
	for _, run := range all {
		for _, c := range run.claims {
			fmt.Fprintf(&b, "| %s | %s | %s | `%s` in `%s` |\n", c.description, r.cell(c, sqlite), r.cell(c, postgres), c.test, strings.TrimPrefix(run.pkg, "./"))
		}
	}
	return b.String()
}

func (r *results) cell(c claimSpec, on engine) string {
	at := claimOnEngine{c.name, on}
	switch {
	case c.engines&on == 0:
		return "–"
	case r.measurements[at] != "":
		return strings.ReplaceAll(r.measurements[at], "|", "/")
	case r.skipped[at]:
		return "not run here"
	default:
		return "**not shown**"
	}
}

// String names the engine.
func (e engine) String() string {
	if e == postgres {
		return "PostgreSQL"
	}
	return "SQLite"
}

// The table in a document stands between these lines.
const (
	tableStart = "<!-- trust: table begins -->\n"
	tableEnd   = "<!-- trust: table ends -->\n"
)

// replaceTable puts the report into a document.
func replaceTable(file, report string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, begins := strings.Cut(string(text), tableStart)
	_, after, ends := strings.Cut(rest, tableEnd)
	if !begins || !ends {
		return fmt.Errorf("%s has no place for the table: want the lines %q and %q", file, tableStart, tableEnd)
	}
	return os.WriteFile(file, []byte(before+tableStart+"\n"+report+"\n"+tableEnd+after), 0o644)
}

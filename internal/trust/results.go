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
)

// shown is a claim on an engine.
type shown struct {
	name string
	on   engine
}

// results are what the tests have said.
type results struct {
	figures map[shown]string
	skipped map[shown]bool
	failed  []string
}

// run runs the tests of an engine and keeps what they say. What a failed one
// wrote is printed.
func (r *results) run(ctx context.Context, cmd *exec.Cmd, env []string, of run, on engine, out io.Writer) {
	var text bytes.Buffer
	read, write := io.Pipe()
	cmd.Stdout = io.MultiWriter(&text, write)
	cmd.Stderr = cmd.Stdout
	cmd.Env = append(os.Environ(), env...)
	ended := make(chan error, 1)
	go func() {
		err := cmd.Run()
		_ = write.Close() // it never fails
		ended <- err
	}()
	r.read(read, of, on, out)
	if err := <-ended; err != nil && ctx.Err() == nil {
		r.failed = append(r.failed, of.pkg+" on "+on.String())
		_, _ = out.Write(text.Bytes())
	}
}

// read finds the figures, and the tests that were skipped, in what go test
// writes.
func (r *results) read(text io.Reader, of run, on engine, out io.Writer) {
	figure, skip := regexp.MustCompile(`trust: ([a-z-]+): (.+)`), regexp.MustCompile(`^--- SKIP: (\w+)`)
	lines := bufio.NewReader(text)
	for {
		line, err := lines.ReadString('\n')
		if said := figure.FindStringSubmatch(line); said != nil {
			r.figures[shown{said[1], on}] = said[2]
			_, _ = fmt.Fprintf(out, "trust: %s: %s (%s)\n", said[1], said[2], on)
		}
		if said := skip.FindStringSubmatch(line); said != nil {
			r.skip(of, on, said[1])
		}
		if strings.Contains(line, "NOT TESTED ON POSTGRESQL") { // the command with runs nothing without it
			r.skip(of, on, "")
		}
		if err != nil {
			return
		}
	}
}

// skip notes that a test was skipped; all of a run when none is named.
func (r *results) skip(of run, on engine, test string) {
	for _, c := range of.claims {
		if test == "" || c.test == test {
			r.skipped[shown{c.name, on}] = true
		}
	}
}

// verdict is an error that names what failed and what was not shown. What a
// machine lacks the means for is no fault, but in CI it is.
func (r *results) verdict(all []run, ci bool) error {
	var wrong []string
	for _, name := range r.failed {
		wrong = append(wrong, name+" failed")
	}
	for _, run := range all {
		for _, c := range run.claims {
			for _, on := range []engine{sqlite, postgres} {
				at := shown{c.name, on}
				if c.on&on != 0 && r.figures[at] == "" && (ci || !r.skipped[at]) {
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
func (r *results) table(all []run) string {
	var b strings.Builder
	b.WriteString("| claim | on SQLite | on PostgreSQL | test |\n| --- | --- | --- | --- |\n")
	for _, run := range all {
		for _, c := range run.claims {
			fmt.Fprintf(&b, "| %s | %s | %s | `%s` in `%s` |\n", c.words, r.cell(c, sqlite), r.cell(c, postgres), c.test, strings.TrimPrefix(run.pkg, "./"))
		}
	}
	return b.String()
}

func (r *results) cell(c promise, on engine) string {
	at := shown{c.name, on}
	switch {
	case c.on&on == 0:
		return "–"
	case r.figures[at] != "":
		return strings.ReplaceAll(r.figures[at], "|", "/")
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
	tableBegins = "<!-- trust: table begins -->\n"
	tableEnds   = "<!-- trust: table ends -->\n"
)

// rewrite puts the report into a document.
func rewrite(file, report string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, begins := strings.Cut(string(text), tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		return fmt.Errorf("%s has no place for the table: want the lines %q and %q", file, tableBegins, tableEnds)
	}
	return os.WriteFile(file, []byte(before+tableBegins+"\n"+report+"\n"+tableEnds+after), 0o644)
}

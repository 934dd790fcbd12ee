package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Units of a work's figure.
const (
	eachSecond   = "/s"
	milliseconds = " ms p99"
	bytesEach    = " bytes"
	microseconds = " µs"
)

// row is all that one contender did in one work.
type row struct {
	work      work
	contender string
	goal      string
	samples   []sample
	first     []sample // of the contender that all are compared with, in the same rounds; nil for itself
	failure   error
}

// spread is the median of some values and how far they lie apart.
type spread struct{ median, low, high float64 }

// spreadOf takes the upper of the two middle values when there are two.
func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	return spread{median: sorted[len(sorted)/2], low: sorted[0], high: sorted[len(sorted)-1]}
}

// text writes the spread with three digits that count.
func (s spread) text(unit string) string {
	return fmt.Sprintf("%s%s (%s..%s)", digits(s.median), unit, digits(s.low), digits(s.high))
}

func digits(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// figures is the spread of the row's figure.
func (r row) figures() spread {
	values := make([]float64, 0, len(r.samples))
	for _, s := range r.samples {
		values = append(values, s.figure)
	}
	return spreadOf(values)
}

// ratios is how many times better than the row the first contender was, each
// round compared with the same round.
func (r row) ratios() spread {
	var values []float64
	for i := range min(len(r.samples), len(r.first)) {
		ratio := r.first[i].figure / r.samples[i].figure
		if r.work.fewer {
			ratio = 1 / ratio
		}
		values = append(values, ratio)
	}
	return spreadOf(values)
}

// middle is the median of one time over the row's samples, in milliseconds or
// whatever unit is given; a dash when there was none.
func (r row) middle(of func(sample) time.Duration, unit time.Duration) string {
	values := make([]time.Duration, 0, len(r.samples))
	for _, s := range r.samples {
		values = append(values, of(s))
	}
	slices.SortFunc(values, cmp.Compare[time.Duration])
	if len(values) == 0 || values[len(values)/2] == 0 {
		return "–"
	}
	return digits(float64(values[len(values)/2]) / float64(unit))
}

// meanwhile says how many posts a second the server took beside the work, when
// there were many.
func (r row) meanwhile() string {
	var values []float64
	for _, s := range r.samples {
		values = append(values, s.posts)
	}
	if posts := spreadOf(values).median; posts > few {
		return fmt.Sprintf("; %s posts/s meanwhile", digits(posts))
	}
	return ""
}

// markdown is the rows as one table.
func markdown(rows []row) string {
	var b strings.Builder
	b.WriteString("| work | server | median (lowest..highest) | p50 ms | p99 ms | server CPU µs each | the first is better by | goal |\n")
	b.WriteString("| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, r := range rows {
		if r.failure != nil {
			fmt.Fprintf(&b, "| %s | %s | refused: %s | – | – | – | – | %s |\n", r.work.name, r.contender, cell(r.failure), cmp.Or(r.goal, "–"))
			continue
		}
		ratio := "–"
		if len(r.first) > 0 {
			ratio = "**" + digits(r.ratios().median) + "×** " + r.ratios().bounds()
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s |\n",
			r.work.name, r.contender+r.meanwhile(), r.figures().text(r.work.unit),
			r.middle(func(s sample) time.Duration { return s.p50 }, time.Millisecond),
			r.middle(func(s sample) time.Duration { return s.p99 }, time.Millisecond),
			r.middle(func(s sample) time.Duration { return s.cpu }, time.Microsecond),
			ratio, cmp.Or(r.goal, "–"))
	}
	return b.String()
}

func (s spread) bounds() string { return fmt.Sprintf("(%s..%s)", digits(s.low), digits(s.high)) }

// cell is an error as it fits into a cell of a table.
func cell(err error) string {
	text := strings.NewReplacer("|", "/", "\n", " ").Replace(err.Error())
	return text[:min(len(text), 300)]
}

// The table in a document stands between these lines.
const (
	tableBegins = "<!-- bench: table begins -->\n"
	tableEnds   = "<!-- bench: table ends -->\n"
)

// replaceTable puts table between the two lines of a document.
func replaceTable(document, table string) (string, error) {
	before, rest, begins := strings.Cut(document, tableBegins)
	_, after, ends := strings.Cut(rest, tableEnds)
	if !begins || !ends {
		return "", fmt.Errorf("the document has no place for the table: want the lines %q and %q", tableBegins, tableEnds)
	}
	return before + tableBegins + "\n" + table + "\n" + tableEnds + after, nil
}

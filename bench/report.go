package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Units of figures.
const (
	unitPerSecond    = "/s"
	unitMilliseconds = " ms p99"
	unitBytes        = " bytes"
	unitMicroseconds = " µs"
	unitMedian       = " ms"
)

// row has the samples of one contender in one workload.
type row struct {
	workload  workload
	contender string
	goal      string
	samples   []sample
	reference []sample // samples of the reference in the same rounds; nil for the reference
	failure   error
}

// spread is the median, the minimum and the maximum of some values.
type spread struct{ median, low, high float64 }

// newSpread takes the upper of two middle values.
func newSpread(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	return spread{median: sorted[len(sorted)/2], low: sorted[0], high: sorted[len(sorted)-1]}
}

// format formats the spread with three significant digits.
func (s spread) format(unit string) string {
	return fmt.Sprintf("%s%s (%s..%s)", formatFigure(s.median), unit, formatFigure(s.low), formatFigure(s.high))
}

func formatFigure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// figureSpread is the spread of the row's figure.
func (r row) figureSpread() spread {
	values := make([]float64, 0, len(r.samples))
	for _, s := range r.samples {
		values = append(values, s.figure)
	}
	return newSpread(values)
}

// ratios is the spread of how many times better than the row the reference was in the same
// round.
func (r row) ratios() spread {
	var values []float64
	for i := range min(len(r.samples), len(r.reference)) {
		ratio := r.reference[i].figure / r.samples[i].figure
		if r.workload.lowerIsBetter {
			ratio = 1 / ratio
		}
		values = append(values, ratio)
	}
	return newSpread(values)
}

// medianTime formats the median of a duration over the row's samples in a unit, or a dash
// without one.
func (r row) medianTime(of func(sample) time.Duration, unit time.Duration) string {
	values := make([]time.Duration, 0, len(r.samples))
	for _, s := range r.samples {
		values = append(values, of(s))
	}
	slices.SortFunc(values, cmp.Compare[time.Duration])
	if len(values) == 0 || values[len(values)/2] == 0 {
		return "–"
	}
	return formatFigure(float64(values[len(values)/2]) / float64(unit))
}

// postsNote formats the rate of background posts if it was high.
func (r row) postsNote() string {
	var values []float64
	for _, s := range r.samples {
		values = append(values, s.postsPerSecond)
	}
	if posts := newSpread(values).median; posts > lightPostRate {
		return fmt.Sprintf("; %s posts/s in the background", formatFigure(posts))
	}
	return ""
}

// markdown formats the rows as a table.
func markdown(rows []row) string {
	var b strings.Builder
	b.WriteString("| work | server | median (lowest..highest) | p50 ms | p99 ms | server CPU µs each | the first is better by | goal |\n")
	b.WriteString("| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, r := range rows {
		if r.failure != nil {
			fmt.Fprintf(&b, "| %s | %s | refused: %s | – | – | – | – | %s |\n", r.workload.name, r.contender, tableCell(r.failure), cmp.Or(r.goal, "–"))
			continue
		}
		ratio := "–"
		if len(r.reference) > 0 {
			ratio = "**" + formatFigure(r.ratios().median) + "×** " + r.ratios().bounds()
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s |\n",
			r.workload.name, r.contender+r.postsNote(), r.figureSpread().format(r.workload.unit),
			r.medianTime(func(s sample) time.Duration { return s.p50 }, time.Millisecond),
			r.medianTime(func(s sample) time.Duration { return s.p99 }, time.Millisecond),
			r.medianTime(func(s sample) time.Duration { return s.cpu }, time.Microsecond),
			ratio, cmp.Or(r.goal, "–"))
	}
	return b.String()
}

func (s spread) bounds() string {
	return fmt.Sprintf("(%s..%s)", formatFigure(s.low), formatFigure(s.high))
}

// tableCell formats an error for a table cell.
func tableCell(err error) string {
	text := strings.NewReplacer("|", "/", "\n", " ").Replace(err.Error())
	return text[:min(len(text), 300)]
}

// The table of a document is between these lines.
const (
	tableStart = "<!-- bench: table begins -->\n"
	tableEnd   = "<!-- bench: table ends -->\n"
)

// replaceTable replaces the table of a document.
func replaceTable(document, table string) (string, error) {
	before, rest, begins := strings.Cut(document, tableStart)
	_, after, ends := strings.Cut(rest, tableEnd)
	if !begins || !ends {
		return "", fmt.Errorf("the document has no place for the table: want the lines %q and %q", tableStart, tableEnd)
	}
	return before + tableStart + "\n" + table + "\n" + tableEnd + after, nil
}

package main

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestSpread(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		values []float64
		want   spread
	}{
		{nil, spread{}},
		{[]float64{7}, spread{7, 7, 7}},
		{[]float64{3, 1, 2}, spread{2, 1, 3}},
		{[]float64{4, 1, 3, 2}, spread{3, 1, 4}},
	} {
		if got := spreadOf(row.values); got != row.want {
			t.Errorf("%v: got %v, want %v", row.values, got, row.want)
		}
	}
	if got := (spread{4812.4, 9.456, 12.34}).text("/s"); got != "4812/s (9.46..12.3)" {
		t.Error(got)
	}
}

// TestRatios compares each round with the baseline of the same round: a slow
// minute that hit both is no difference.
func TestRatios(t *testing.T) {
	t.Parallel()
	ours := []sample{{figure: 400}, {figure: 100}, {figure: 300}}
	theirs := []sample{{figure: 100}, {figure: 25}, {figure: 100}}
	if got := (row{samples: ours, baseline: theirs}).ratios(); got != (spread{4, 3, 4}) {
		t.Errorf("more is better: %v", got)
	}
	if got := (row{work: work{fewer: true}, samples: theirs, baseline: ours}).ratios(); got != (spread{4, 3, 4}) {
		t.Errorf("fewer is better: %v", got)
	}
}

func TestMarkdown(t *testing.T) {
	t.Parallel()
	e := experiment{
		works:      []work{{name: "read", unit: perSecond, goal: "≥ 1.25×"}},
		contenders: []contender{{name: "ours"}, {name: "REST"}, {name: "theirs"}},
	}
	one := func(s sample) [][]sample { return [][]sample{{s}} }
	table := markdown(e.rows([][][]sample{
		one(sample{figure: 3000, p50: time.Millisecond, p99: 2500 * time.Microsecond, cpu: 40 * time.Microsecond}),
		nil,
		one(sample{figure: 2000}),
	}, []error{nil, errors.New("lost\none | two"), nil}))
	want := `| work | server | median (lowest..highest) | p50 ms | p99 ms | server CPU µs each | better than the baseline | goal |
| --- | --- | --- | --- | --- | --- | --- | --- |
| read | ours | 3000/s (3000..3000) | 1.00 | 2.50 | 40.0 | **1.50×** (1.50..1.50) | ≥ 1.25× |
| read | REST | refused: lost one / two | – | – | – | – | – |
| read | theirs | 2000/s (2000..2000) | – | – | – | baseline | – |
`
	if table != want {
		t.Errorf("got\n%s\nwant\n%s", table, want)
	}
}

func TestReplaceTable(t *testing.T) {
	t.Parallel()
	got, err := replaceTable("before\n"+tableBegins+"old\n"+tableEnds+"after\n", "new\n")
	if want := "before\n" + tableBegins + "\nnew\n\n" + tableEnds + "after\n"; err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := replaceTable("a document without a place for it", "new\n"); err == nil {
		t.Error("a document without the lines was rewritten")
	}
}

func TestParseStat(t *testing.T) {
	t.Parallel()
	got, err := parseStat([]byte("42 (a (b) c) S 1 1 1 0 -1 4194560 900 0 0 0 120 30 0 0 20 0 9 0 12345 1000000 2 18446744073709551615"))
	if err != nil || got.cpu != 1500*time.Millisecond || got.rss < 2*4096 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := parseStat([]byte("42 (cut) S 1")); err == nil {
		t.Error("half a line was read")
	}
}

// TestLaunch shows that a program which cannot serve is not waited for, and
// that its own words are passed on.
func TestLaunch(t *testing.T) {
	t.Parallel()
	_, err := launch(t.Context(), func(ctx context.Context, _, _ string) *exec.Cmd {
		return exec.CommandContext(ctx, "sh", "-c", "echo no database; exit 3")
	})
	if err == nil || !strings.Contains(err.Error(), "ended at once") || !strings.Contains(err.Error(), "no database") {
		t.Errorf("got %v", err)
	}
}

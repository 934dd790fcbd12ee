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
		if got := newSpread(row.values); got != row.want {
			t.Errorf("%v: got %v, want %v", row.values, got, row.want)
		}
	}
	if got := (spread{4812.4, 9.456, 12.34}).format("/s"); got != "4812/s (9.46..12.3)" {
		t.Error(got)
	}
}

// TestRatios: a ratio compares samples of the same round, so a slow minute that affects
// both has no effect.
func TestRatios(t *testing.T) {
	t.Parallel()
	ours := []sample{{figure: 400}, {figure: 100}, {figure: 300}}
	theirs := []sample{{figure: 100}, {figure: 25}, {figure: 100}}
	if got := (row{samples: theirs, reference: ours}).ratios(); got != (spread{4, 3, 4}) {
		t.Errorf("more is better: %v", got)
	}
	if got := (row{workload: workload{lowerIsBetter: true}, samples: ours, reference: theirs}).ratios(); got != (spread{4, 3, 4}) {
		t.Errorf("fewer is better: %v", got)
	}
}

func TestMarkdown(t *testing.T) {
	t.Parallel()
	e := experiment{
		workloads:  []workload{{name: "read", unit: unitPerSecond}},
		contenders: []contender{{name: "ours", goals: []string{"p99 ≤ 3 ms"}}, {name: "REST"}, {name: "theirs", goals: []string{"≥ 1.25×"}}},
	}
	one := func(s sample) [][]sample { return [][]sample{{s}} }
	samples := [][][]sample{
		one(sample{figure: 3000, p50: time.Millisecond, p99: 2500 * time.Microsecond, cpu: 40 * time.Microsecond}),
		nil,
		one(sample{figure: 2000, postsPerSecond: 900}),
	}
	failed := []error{nil, errors.New("lost\none | two"), nil}
	const head = "| work | server | median (lowest..highest) | p50 ms | p99 ms | server CPU µs each | the first is better by | goal |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n"
	want := head + `| read | ours | 3000/s (3000..3000) | 1.00 | 2.50 | 40.0 | – | p99 ≤ 3 ms |
| read | REST | refused: lost one / two | – | – | – | – | – |
| read | theirs; 900 posts/s in the background | 2000/s (2000..2000) | – | – | – | **1.50×** (1.50..1.50) | ≥ 1.25× |
`
	if table := markdown(e.rows(samples, failed)); table != want {
		t.Errorf("got\n%s\nwant\n%s", table, want)
	}
	e.reference = 2
	if got := e.rows(samples, failed)[0].ratios(); got != (spread{2000. / 3000, 2000. / 3000, 2000. / 3000}) {
		t.Errorf("compared with another than the first: %v", got)
	}
}

func TestIsSelected(t *testing.T) {
	t.Parallel()
	named := func(name string) experiment { return experiment{workloads: []workload{{name: name}}} }
	for _, row := range []struct {
		only []string
		name string
		want bool
	}{
		{nil, "list, 10 posts/s", true},
		{nil, "growth: read", false},
		{[]string{"growth"}, "growth: read", true},
		{[]string{"post", "list"}, "list, 10 posts/s", true},
		{[]string{"post"}, "list, 10 posts/s", false},
	} {
		if got := (&bench{only: row.only}).isSelected(named(row.name)); got != row.want {
			t.Errorf("%q of %v: got %v", row.name, row.only, got)
		}
	}
}

func TestReplaceTable(t *testing.T) {
	t.Parallel()
	got, err := replaceTable("before\n"+tableStart+"old\n"+tableEnd+"after\n", "new\n")
	if want := "before\n" + tableStart + "\nnew\n\n" + tableEnd + "after\n"; err != nil || got != want {
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

// TestLaunch: launch returns at once with the output of a program that cannot serve.
func TestLaunch(t *testing.T) {
	t.Parallel()
	_, err := launch(t.Context(), func(ctx context.Context, _, _ string) *exec.Cmd {
		return exec.CommandContext(ctx, "sh", "-c", "echo no database; exit 3")
	})
	if err == nil || !strings.Contains(err.Error(), "ended at once") || !strings.Contains(err.Error(), "no database") {
		t.Errorf("got %v", err)
	}
}

// Package goroutines counts the goroutines that a test started.
package goroutines

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"runtime/pprof"
	"strings"
	"testing"
)

// Counter labels the goroutine of a test until the test ends. Goroutines started from it
// inherit the label. The returned function counts them.
func Counter(t *testing.T) (count func() int) {
	t.Helper()
	pprof.SetGoroutineLabels(pprof.WithLabels(t.Context(), pprof.Labels("test", t.Name())))
	t.Cleanup(func() { pprof.SetGoroutineLabels(context.Background()) })
	return func() int {
		t.Helper()
		var profile bytes.Buffer
		if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
			t.Fatal(err)
		}
		return countLabelled(&profile, fmt.Sprintf("%q:%q", "test", t.Name()))
	}
}

// countLabelled sums the groups of a profile that have a label.
func countLabelled(profile *bytes.Buffer, label string) int {
	total, group := 0, 0
	for lines := bufio.NewScanner(profile); lines.Scan(); {
		if n, err := fmt.Sscanf(lines.Text(), "%d @", &group); n == 1 && err == nil {
			continue
		}
		if strings.HasPrefix(lines.Text(), "# labels:") && strings.Contains(lines.Text(), label) {
			total += group
		}
	}
	return total
}

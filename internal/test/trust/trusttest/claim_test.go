package trusttest

import "testing"

// TestScale: a share of a long run is never less than make trust.
func TestScale(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		trust, long string
		want        int
	}{
		{"", "", 3}, {"1", "", 100}, {"1", "1", 2500}, {"1", "0.1", 250}, {"1", "0.01", 100},
	} {
		if got := scale(row.trust, row.long, 3, 100, 2500); got != row.want {
			t.Errorf("trust %q, long %q: got %d, want %d", row.trust, row.long, got, row.want)
		}
	}
}

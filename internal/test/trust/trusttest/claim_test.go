package trusttest

import "testing"

// TestScale: a part of a night is that part of it, and never less than make trust is.
func TestScale(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		proved, long string
		want         int
	}{
		{"", "", 3}, {"1", "", 100}, {"1", "1", 2500}, {"1", "0.1", 250}, {"1", "0.01", 100},
	} {
		if got := scale(row.proved, row.long, 3, 100, 2500); got != row.want {
			t.Errorf("with %q and %q it is %d, want %d", row.proved, row.long, got, row.want)
		}
	}
}

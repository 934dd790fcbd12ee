// Package trusttest is how a test says what it has shown. A claim is a promise of
// docs/reliability.md; "make trust" gathers the figures of all of them.
package trusttest

import (
	"fmt"
	"os"
	"strconv"
	"testing"
)

// The variables that make trust and make trust-long set. LongEnv is how much of a night
// there is: 1, or a part of it.
const (
	TrustEnv = "AGENTMARKET_TEST_TRUST"
	LongEnv  = "AGENTMARKET_TEST_LONG"
)

// The variables that name the program for the tests that run it, where it has been
// built before; FailpointsBinaryEnv is the one with that build tag.
const (
	BinaryEnv           = "AGENTMARKET_TEST_BINARY"
	FailpointsBinaryEnv = "AGENTMARKET_TEST_FAILPOINTS"
)

// Scale is how much of something a test does: a little among all the others,
// more in make trust, much in make trust-long; of a part of a night that part of
// much, and never less than more.
func Scale(little, more, much int) int {
	return scale(os.Getenv(TrustEnv), os.Getenv(LongEnv), little, more, much)
}

func scale(proved, long string, little, more, much int) int {
	night, err := strconv.ParseFloat(long, 64)
	switch {
	case err == nil:
		return max(more, int(night*float64(much)))
	case proved != "":
		return more
	default:
		return little
	}
}

// SkipUnlessTrust skips a test that takes too long to run among all the others.
func SkipUnlessTrust(tb testing.TB) {
	tb.Helper()
	if Scale(0, 1, 1) == 0 {
		tb.Skip("runs with make trust")
	}
}

// Report writes the figure of a claim, unless the test has failed. The claim is
// named as in the table of the command trust.
func Report(tb testing.TB, name, format string, args ...any) {
	tb.Helper()
	if !tb.Failed() {
		tb.Logf("trust: %s: %s", name, fmt.Sprintf(format, args...))
	}
}

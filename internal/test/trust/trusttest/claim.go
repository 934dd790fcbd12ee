// Package trusttest lets tests report the measurements of claims of docs/reliability.md.
// "make trust" collects them.
package trusttest

import (
	"fmt"
	"os"
	"strconv"
	"testing"
)

// The environment variables that make trust and make trust-long set. LongEnv is the share of
// a long run: 1, or a fraction.
const (
	TrustEnv = "AGENTMARKET_TEST_TRUST"
	LongEnv  = "AGENTMARKET_TEST_LONG"
)

// The environment variables with the path of a built server for end-to-end tests.
// FailpointsBinaryEnv is a build with the tag failpoints.
const (
	BinaryEnv           = "AGENTMARKET_TEST_BINARY"
	FailpointsBinaryEnv = "AGENTMARKET_TEST_FAILPOINTS"
)

// Scale returns the amount of work for a test: little in make test, more in make trust, and
// much in make trust-long. With a share of a long run it is that share of much, but at least
// more.
func Scale(little, more, much int) int {
	return scale(os.Getenv(TrustEnv), os.Getenv(LongEnv), little, more, much)
}

func scale(trust, long string, little, more, much int) int {
	share, err := strconv.ParseFloat(long, 64)
	switch {
	case err == nil:
		return max(more, int(share*float64(much)))
	case trust != "":
		return more
	default:
		return little
	}
}

// SkipUnlessTrust skips a test that takes too long for make test.
func SkipUnlessTrust(tb testing.TB) {
	tb.Helper()
	if Scale(0, 1, 1) == 0 {
		tb.Skip("runs with make trust")
	}
}

// Report logs the measurement of a claim, unless the test has failed. The name is that of
// the claim in command trust.
func Report(tb testing.TB, name, format string, args ...any) {
	tb.Helper()
	if !tb.Failed() {
		tb.Logf("trust: %s: %s", name, fmt.Sprintf(format, args...))
	}
}

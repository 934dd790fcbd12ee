// Package testutil holds the small helpers that tests of many packages share.
package testutil

import (
	"os"
	"strings"
	"testing"
	"time"
)

// TimeoutEnv is the environment variable that overrides Timeout, such as "10s".
const TimeoutEnv = "AGENTMARKET_TEST_TIMEOUT"

// Timeout bounds every wait of a test. The default of a minute is much longer than any wait
// takes on a busy machine.
var Timeout = timeout(os.Getenv(TimeoutEnv))

func timeout(setting string) time.Duration {
	if d, err := time.ParseDuration(setting); err == nil {
		return d
	}
	return time.Minute
}

// Must fails the test when err is not nil.
func Must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// Equal reports an error when got differs from want. what names the value.
func Equal[T comparable](tb testing.TB, what string, got, want T) {
	tb.Helper()
	if got != want {
		tb.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// Eventually waits until done returns true, and fails the test after Timeout.
// what names the condition.
func Eventually(tb testing.TB, what string, done func() bool) {
	tb.Helper()
	timeout := time.After(Timeout)
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-timeout:
			tb.Fatalf("timed out after %s waiting for %s", Timeout, what)
		}
	}
}

// Receive returns the next value of ch, or the zero value if ch is closed. It fails the test
// after Timeout. what names the value.
func Receive[T any](tb testing.TB, what string, ch <-chan T) T {
	tb.Helper()
	select {
	case value := <-ch:
		return value
	case <-time.After(Timeout):
		tb.Fatalf("timed out after %s waiting for %s", Timeout, what)
		panic("unreachable")
	}
}

// ReadFile returns the contents of a file.
func ReadFile(tb testing.TB, name string) string {
	tb.Helper()
	text, err := os.ReadFile(name)
	Must(tb, err)
	return string(text)
}

// CodeBlock returns the first code block of a language in a Markdown file, below a heading of
// level two unless that is "".
func CodeBlock(tb testing.TB, file, heading, language string) string {
	tb.Helper()
	text, found := ReadFile(tb, file), true
	if heading != "" {
		_, text, found = strings.Cut(text, "## "+heading+"\n")
	}
	_, text, begins := strings.Cut(text, "```"+language+"\n")
	code, _, ends := strings.Cut(text, "```")
	if !found || !begins || !ends {
		tb.Fatalf("%s has no %s code below %q", file, language, heading)
	}
	return code
}

package client

import "testing"

// TestSanitizeText checks that control characters are removed and line breaks stay.
func TestSanitizeText(t *testing.T) {
	t.Parallel()
	if got, want := sanitizeText("a\tb\r\n\x1b[31mred\x07\rover\u009b2J\n"), "a\tb\n [31mred  over 2J\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

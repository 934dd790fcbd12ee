package repo

import (
	"bytes"
	"os"
	"regexp"
	"testing"
	"unicode/utf8"
)

// TestNoMachinePaths: no file contains a path that exists only on its author's machine.
func TestNoMachinePaths(t *testing.T) {
	t.Parallel()
	machinePath := regexp.MustCompile(`(?:^|[^\w./-])(?:/(?:home|root|Users|work|tmp)/\w[\w.-]*/|[A-Z]:\\Users\\)`)
	for example, bad := range map[string]bool{
		"see /" + "home/ana/market/doc.go":       true,
		"(/" + "work/market/server.go:12)":       true,
		"https://example.com/work/today/42":      false,
		"the/work/in/progress, a/home/for/files": false,
		"DATABASE=/var/lib/agentmarket.db":       false,
	} {
		if machinePath.MatchString(example) != bad {
			t.Errorf("%q: want a match: %t", example, bad)
		}
	}
	walkModule(t, func(name string) error {
		text, err := os.ReadFile(name)
		if err != nil || bytes.IndexByte(text, 0) >= 0 || !utf8.Valid(text) {
			return err
		}
		for i, line := range bytes.Split(text, []byte("\n")) {
			if found := machinePath.Find(line); found != nil {
				t.Errorf("%s:%d: path of one machine: %s", name, i+1, found)
			}
		}
		return nil
	})
}

package repo

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSecurityPage: each item of the lists in docs/security.md names tests, and each named
// test exists.
func TestSecurityPage(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		named := namedTests(line)
		for _, test := range named {
			if !testExists(t, test[0], test[1]) {
				t.Errorf("no test %s in %s", test[1], test[0])
			}
		}
		if cells := strings.Split(line, "|"); len(cells) == 6 && !strings.Contains(line, "| settings | tests |") && !strings.HasPrefix(line, "|---") {
			rows++
			if len(named) == 0 {
				t.Errorf("%q names no test", cells[1])
			}
		}
	}
	if want := 10 + 14; rows != want {
		t.Errorf("%d items are listed, want %d", rows, want)
	}
	for n := range 10 {
		if !strings.Contains(string(text), fmt.Sprintf("| API%d ", n+1)) {
			t.Errorf("API%d is not listed", n+1)
		}
	}
}

func TestSecurityPage_findsMissingTests(t *testing.T) {
	t.Parallel()
	found := namedTests("| API1 | done | | `database.TestSchemaDrift`, `graph/transport.TestGone`, `compat.FuzzBody` |")
	if len(found) != 3 || !testExists(t, found[0][0], found[0][1]) || testExists(t, found[1][0], found[1][1]) || !testExists(t, found[2][0], found[2][1]) {
		t.Errorf("got %v", found)
	}
}

// namedTests returns the folder and name of each test that a line names.
func namedTests(line string) (named [][2]string) {
	for _, test := range regexp.MustCompile("`([a-z0-9/]+)\\.((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(line, -1) {
		named = append(named, [2]string{test[1], test[2]})
	}
	return named
}

// testExists reports whether a folder has a test.
func testExists(t *testing.T, folder, name string) bool {
	t.Helper()
	var files []string
	for _, parent := range []string{"", "internal", "internal/test"} {
		found, err := filepath.Glob(filepath.Join(parent, folder, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "func "+name+"(") {
			return true
		}
	}
	return false
}

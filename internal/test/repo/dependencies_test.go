package repo

import (
	"os"
	"regexp"
	"testing"
)

// TestDependencies_documented: docs/dependencies.md lists every direct requirement of
// go.mod with its version, and nothing else.
func TestDependencies_documented(t *testing.T) {
	t.Parallel()
	required, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for _, row := range regexp.MustCompile(`(?m)^\| (\S+\.\S+/\S+) \| (v\S+) \|`).FindAllStringSubmatch(string(doc), -1) {
		rows[row[1]] = row[2]
	}
	for _, requirement := range regexp.MustCompile(`(?m)^(?:require )?\s*(\S+\.\S+/\S+) (v\S+)( // indirect)?$`).FindAllStringSubmatch(string(required), -1) {
		module, version, indirect := requirement[1], requirement[2], requirement[3] != ""
		if listed, ok := rows[module]; (!ok && !indirect) || (ok && listed != version) {
			t.Errorf("go.mod requires %s %s, docs/dependencies.md has %q", module, version, listed)
		}
		delete(rows, module)
	}
	for module := range rows {
		t.Errorf("docs/dependencies.md lists %s, go.mod does not require it", module)
	}
}

package repo

import (
	"bytes"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

const modulePath = "agentmarket.space/server"

// levels is the whole architecture: a package imports packages of lower levels
// only. A package without a line of its own stands where the folder above it
// stands, and a package may import what lies in its own folder (graph imports
// graph/generated, never the other way round). A new package at the top level
// earns a place here and a line in docs/architecture.md.
//
// bench, examples, internal/test and internal/gen stand beside the levels: no product
// code imports them.
var levels = map[string]int{
	"models": 0, "internal/keyedsem": 0, "internal/pages": 0, "internal/tracing": 0,
	"internal/config": 1, "internal/database": 1, "internal/outbound": 1, "internal/guide": 1,
	"graph/transport": 1, "graph/explorer": 1, "compat/reference": 1,
	"internal/auth": 2, "internal/executor": 2, "internal/ledger": 2, "internal/events": 2,
	"internal/webhooks": 3, "internal/idempotency": 3, "internal/audit": 3,
	"internal/market": 4,
	"graph":           5, "internal/client": 5,
	"compat":       6,
	"internal/app": 7,
	"internal/dev": 8,
	"internal/cli": 9,
	".":            10,
}

// TestLayers holds every import between packages of this module to levels.
func TestLayers(t *testing.T) {
	t.Parallel()
	for _, pkg := range modulePackages(t) {
		for _, imported := range pkg.imports {
			if reason := importViolation(pkg.dir, imported); reason != "" {
				t.Errorf("%s imports %s: %s", pkg.dir, imported, reason)
			}
		}
		if _, known := levelOf(pkg.dir); !known && !isOutsideLayers(pkg.dir) {
			t.Errorf("package %s has no level: give it a line in levels and in docs/architecture.md", pkg.dir)
		}
	}
}

// TestLayers_rejectsForbiddenImports shows that the rule bites, whatever the tree looks like today.
func TestLayers_rejectsForbiddenImports(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		from, to string
		allowed  bool
	}{
		{"internal/market", "internal/ledger", true},
		{"internal/ledger", "internal/market", false},
		{"internal/ledger", "internal/events", false},
		{"internal/market", "internal/idempotency", true},
		{"internal/idempotency", "internal/market", false},
		{"internal/audit", "internal/idempotency", false},
		{"compat", "graph", true},
		{"graph", "graph/generated", true},
		{"graph/generated", "graph", false},
		{"graph/generated", "internal/market", true},
		{"graph/transport", "internal/market", false},
		{"graph/explorer", "internal/pages", true},
		{"internal/pages", "models", false},
		{"internal/database/migrations", "models", true},
		{"internal/app", "internal/test/markettest", false},
		{"internal/test/markettest", "internal/app", true},
		{"bench", "models", false},
		{"bench/load", "bench/report", true},
		{"models", "bench", false},
		{"examples/worker-go", "internal/client/api", false},
		{"internal/app", "examples/worker-go", false},
		{"internal/app", "unheardof", false},
	} {
		if reason := importViolation(row.from, row.to); (reason == "") != row.allowed {
			t.Errorf("%s imports %s: allowed should be %t, refusal is %q", row.from, row.to, row.allowed, reason)
		}
	}
}

// importViolation says why a package may not import another, or "" when it may.
func importViolation(from, to string) string {
	level, _ := levelOf(from)
	importedLevel, known := levelOf(to)
	switch {
	case isWithin(from, "internal/test"), isWithin(from, "internal/gen"):
		return "" // test support and generators may know everything
	case isWithin(from, "bench") && !isWithin(to, "bench"), isWithin(from, "examples"):
		return "it speaks to a server over the network and knows nothing else of it"
	case isOutsideLayers(to) && !isOutsideLayers(from):
		return "it stands beside the layers, for tests and measurements only"
	case isWithin(to, from), isWithin(from, "bench"):
		return ""
	case !known:
		return "it has no level"
	case importedLevel >= level:
		return "imports point to lower levels only"
	default:
		return ""
	}
}

// levelOf answers for a package, or else for the nearest folder above it.
func levelOf(dir string) (level int, known bool) {
	for ; ; dir = path.Dir(dir) {
		if level, known = levels[dir]; known || dir == "." {
			break
		}
		if path.Dir(dir) == "." {
			return 0, false // the root has a level, but lends it to nobody
		}
	}
	return level, known
}

func isOutsideLayers(dir string) bool {
	return isWithin(dir, "bench") || isWithin(dir, "examples") || isWithin(dir, "internal/test") || isWithin(dir, "internal/gen")
}

func isWithin(dir, folder string) bool { return dir == folder || strings.HasPrefix(dir, folder+"/") }

// TestPackageDocs wants one package comment in every package, no more.
// Packages that are generated whole are left to their generator.
func TestPackageDocs(t *testing.T) {
	t.Parallel()
	for _, pkg := range modulePackages(t) {
		if pkg.handwritten && len(pkg.docFiles) != 1 {
			t.Errorf("package %s: want a package comment in one file, have it in %v", pkg.dir, pkg.docFiles)
		}
	}
}

type modulePackage struct {
	dir         string   // relative to the module, "." for its root
	handwritten bool     // at least one file was written by hand
	docFiles    []string // files that carry a package comment
	imports     []string // of this module, as dirs, tests left out
}

// modulePackages parses the module itself, not through the go command: the test
// cache sees the files read here, so a new import is never passed over.
func modulePackages(t *testing.T) []modulePackage {
	t.Helper()
	byDir := map[string]*modulePackage{}
	walkModule(t, func(name string) error {
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.Contains(name, "testdata/") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		dir := path.Dir(name)
		if byDir[dir] == nil {
			byDir[dir] = &modulePackage{dir: dir}
		}
		pkg := byDir[dir]
		pkg.handwritten = pkg.handwritten || !ast.IsGenerated(f)
		if f.Doc != nil {
			pkg.docFiles = append(pkg.docFiles, name)
		}
		for _, spec := range f.Imports {
			if imported, ok := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), modulePath+"/"); ok {
				pkg.imports = append(pkg.imports, imported)
			}
		}
		return nil
	})
	var pkgs []modulePackage
	for _, dir := range slices.Sorted(maps.Keys(byDir)) {
		pkgs = append(pkgs, *byDir[dir])
	}
	return pkgs
}

// TestDependencies_documented: what go.mod asks for directly has a row with its
// version in docs/dependencies.md, and a row without a requirement goes.
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

// TestNoMachinePaths keeps the paths of whoever wrote a file out of it: they
// mean nothing in a clone, and examples that hold them fail there.
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
			t.Errorf("%q: want it found %t", example, bad)
		}
	}
	walkModule(t, func(name string) error {
		text, err := os.ReadFile(name)
		if err != nil || bytes.IndexByte(text, 0) >= 0 || !utf8.Valid(text) {
			return err
		}
		for i, line := range bytes.Split(text, []byte("\n")) {
			if found := machinePath.Find(line); found != nil {
				t.Errorf("%s:%d: a path of one machine: %s", name, i+1, found)
			}
		}
		return nil
	})
}

// walkModule calls visit with each file of the module by its slashed path. It
// passes over hidden folders but .ci, over what .gitignore names, and over
// nested modules.
func walkModule(t *testing.T, visit func(name string) error) {
	t.Helper()
	ignored := regexp.MustCompile(`(^|/)node_modules(/|$)|\.(test|prof|out)$|^(server|agentmarket|bin)$|^[^/]+\.(db|db-\w+|db\.\w+|key)$`)
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		slashed := filepath.ToSlash(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // gone between the listing and the look
		case err != nil:
			return err
		case name == ".", name == ".git": // .git is a file in a worktree
			if entry.IsDir() && name == ".git" {
				return filepath.SkipDir
			}
			return nil
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && entry.Name() != ".ci", ignored.MatchString(slashed):
			if entry.IsDir() {
				return filepath.SkipDir
			}
			return nil
		case entry.IsDir():
			if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
				return filepath.SkipDir
			}
			return nil
		case !entry.Type().IsRegular():
			return nil
		}
		return visit(slashed)
	})
	if err != nil {
		t.Fatal(err)
	}
}

package repo

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
)

const modulePath = "agentmarket.space/server"

// levels defines the layers: a package imports packages of lower levels only. A package
// that is not listed has the level of its parent folder. A package may import packages
// below its own folder (graph imports graph/generated, not the other way round). List a
// new package here and in docs/architecture.md.
//
// bench, examples, internal/test and internal/gen have no level: product code does not
// import them.
var levels = map[string]int{
	"models": 0, "internal/bytelru": 0, "internal/jsontext": 0, "internal/keyedsem": 0, "internal/negotiate": 0, "internal/pages": 0, "internal/tracing": 0, "internal/words": 0, "graph/operation": 0,
	"internal/config": 1, "internal/database": 1, "internal/outbound": 1, "internal/guide": 1,
	"graph/transport": 1, "graph/scalar": 1, "graph/explorer": 1, "compat/reference": 1,
	"internal/auth": 2, "internal/executor": 2, "internal/ledger": 2, "internal/events": 2,
	"internal/webhooks": 3, "internal/idempotency": 3, "internal/audit": 3, "graph/cache": 3,
	"internal/market": 4, "graph/fanout": 5,
	"graph": 5, "internal/client": 5,
	"compat":       6,
	"internal/app": 7,
	"internal/dev": 8,
	"internal/cli": 9,
	".":            10,
}

// TestLayers checks every import between packages of this module.
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
		{"graph", "graph/cache", true},
		{"graph/cache", "graph", false},
		{"graph/fanout", "graph", false},
		{"graph/cache", "graph/fanout", false},
		{"compat", "graph/cache", true},
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
		{"internal/app", "unknown", false},
	} {
		if reason := importViolation(row.from, row.to); (reason == "") != row.allowed {
			t.Errorf("%s imports %s: got %q, want it allowed: %t", row.from, row.to, reason, row.allowed)
		}
	}
}

// importViolation returns why a package must not import another, or "" if it may.
func importViolation(from, to string) string {
	level, _ := levelOf(from)
	importedLevel, known := levelOf(to)
	switch {
	case isWithin(from, "internal/test"), isWithin(from, "internal/gen"):
		return "" // test support and generators may import everything
	case isWithin(from, "bench") && !isWithin(to, "bench"), isWithin(from, "examples"):
		return "benchmarks and examples use the server over the network only"
	case isOutsideLayers(to) && !isOutsideLayers(from):
		return "it is for tests and measurements only"
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

// levelOf returns the level of a package, or of the nearest parent folder that has one.
func levelOf(dir string) (level int, known bool) {
	for ; ; dir = path.Dir(dir) {
		if level, known = levels[dir]; known || dir == "." {
			break
		}
		if path.Dir(dir) == "." {
			return 0, false // folders do not inherit the level of the root
		}
	}
	return level, known
}

func isOutsideLayers(dir string) bool {
	return isWithin(dir, "bench") || isWithin(dir, "examples") || isWithin(dir, "internal/test") || isWithin(dir, "internal/gen")
}

func isWithin(dir, folder string) bool { return dir == folder || strings.HasPrefix(dir, folder+"/") }

// TestPackageDocs checks that every package has its package comment in exactly one file.
// Generated packages are skipped.
func TestPackageDocs(t *testing.T) {
	t.Parallel()
	for _, pkg := range modulePackages(t) {
		if pkg.handwritten && len(pkg.docFiles) != 1 {
			t.Errorf("package %s: want a package comment in one file, found it in %v", pkg.dir, pkg.docFiles)
		}
	}
}

type modulePackage struct {
	dir         string   // relative to the module; "." for its root
	handwritten bool     // whether a file is not generated
	docFiles    []string // files with a package comment
	imports     []string // folders of this module, without imports of tests
}

// modulePackages returns the packages of the module. It parses the files instead of calling
// go list, so that the test cache notices every change.
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

package graph

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	gql "github.com/vektah/gqlparser/v2/ast"

	"agentmarket.space/server/graph/operation"
	"agentmarket.space/server/internal/test/testutil"
)

// TestPrivacy_resolvers checks that every field whose resolver reads the caller is
// private in the schema. Without the mark, the cache and the fan-out would serve one
// caller's value to another.
func TestPrivacy_resolvers(t *testing.T) {
	t.Parallel()
	if leaks := publicCallerFields(executableSchema().Schema(), parsePackage(t)); len(leaks) > 0 {
		t.Errorf("resolvers that read the caller need @authenticated or @cacheControl(scope: PRIVATE): %v", leaks)
	}
}

// TestPrivacy_detectsLeaks shows that TestPrivacy_resolvers finds a leak in a
// resolver, in a function that it calls, and in a schema without marks.
func TestPrivacy_detectsLeaks(t *testing.T) {
	t.Parallel()
	schema := executableSchema().Schema()
	for name, source := range map[string]string{
		"direct":          `func (r *agentResolver) Name(ctx context.Context) { auth.FromContext(ctx) }`,
		"in a method":     `func (r *agentResolver) Name(ctx context.Context) { r.nameFor(ctx) }; func (r *Resolver) nameFor(ctx context.Context) { auth.Require(ctx) }`,
		"in a function":   `func (r *agentResolver) Name(ctx context.Context) { outer(ctx) }; func outer(ctx context.Context) { inner(ctx) }; func inner(ctx context.Context) { auth.RequestFrom(ctx) }`,
		"function value":  `func (r *agentResolver) Name(ctx context.Context) { f := inner; f(ctx) }; func inner(ctx context.Context) { auth.RequestFrom(ctx) }`,
		"a context value": `func (r *agentResolver) Name(ctx context.Context) { ctx.Value(actorKey) }`,
	} {
		file, err := parser.ParseFile(token.NewFileSet(), "leak.go", "package graph\n"+source, 0)
		testutil.Must(t, err)
		if leaks := publicCallerFields(schema, append(parsePackage(t), file)); !slices.Equal(leaks, []string{"Agent.name"}) {
			t.Errorf("%s: found %v, want Agent.name", name, leaks)
		}
	}
	unmarked := *schema
	unmarked.Types = map[string]*gql.Definition{}
	for name, definition := range schema.Types {
		plain := *definition
		plain.Fields = nil
		for _, field := range definition.Fields {
			plain.Fields = append(plain.Fields, &gql.FieldDefinition{Name: field.Name})
		}
		unmarked.Types[name] = &plain
	}
	leaks := publicCallerFields(&unmarked, parsePackage(t))
	for _, want := range []string{"Query.viewer", "Query.node", "Query.nodes", "Query.task", "Task.result", "Mutation.postTask"} {
		if !slices.Contains(leaks, want) {
			t.Errorf("%s is not found without its mark: %v", want, leaks)
		}
	}
}

// TestPrivacy_interfaces checks that a field is private in an interface when it is
// private in one of its types: a selection on the interface has the interface's field.
func TestPrivacy_interfaces(t *testing.T) {
	t.Parallel()
	schema := executableSchema().Schema()
	for _, definition := range schema.Types {
		for _, name := range definition.Interfaces {
			for _, field := range schema.Types[name].Fields {
				if operation.IsPrivateField(definition.Fields.ForName(field.Name)) && !operation.IsPrivateField(field) {
					t.Errorf("%s.%s is private, %s.%s is not", definition.Name, field.Name, name, field.Name)
				}
			}
		}
	}
}

// parsePackage parses the Go files of this package, without tests.
func parsePackage(t *testing.T) (files []*ast.File) {
	t.Helper()
	names, err := fs.Glob(os.DirFS("."), "*.go")
	testutil.Must(t, err)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		testutil.Must(t, err)
		files = append(files, file)
	}
	return files
}

// publicCallerFields returns the fields, as Type.field, that are public in the schema
// and whose resolver reads the caller, directly or through functions of the package.
func publicCallerFields(schema *gql.Schema, files []*ast.File) (leaks []string) {
	graph := newCallGraph(files)
	for name := range graph.calls {
		receiver, method, _ := strings.Cut(name, ".")
		typeName, isResolver := strings.CutSuffix(receiver, "Resolver")
		if !isResolver || typeName == "" || !graph.readsCaller(name, map[string]bool{}) {
			continue
		}
		for _, definition := range schema.Types {
			if !strings.EqualFold(definition.Name, typeName) {
				continue
			}
			for _, field := range definition.Fields {
				if strings.EqualFold(field.Name, method) && !operation.IsPrivateField(field) {
					leaks = append(leaks, definition.Name+"."+field.Name)
				}
			}
		}
	}
	slices.Sort(leaks)
	return leaks
}

// callGraph is which functions of a package refer to which others. A method is named
// Receiver.Name. The graph is conservative: a call of x.Name refers to every method
// Name of the package, unless x is an imported package or a field of a type from another
// package. So does a mention of x.name, without a call.
type callGraph struct {
	calls    map[string][]string
	sinks    map[string]bool     // functions that read the caller themselves
	methods  map[string][]string // by name without the receiver
	external map[string]bool     // imported packages, and struct fields whose type is from one
}

func newCallGraph(files []*ast.File) *callGraph {
	g := &callGraph{calls: map[string][]string{}, sinks: map[string]bool{}, methods: map[string][]string{}, external: map[string]bool{}}
	var functions []*ast.FuncDecl
	for _, file := range files {
		for _, spec := range file.Imports {
			g.external[path.Base(strings.Trim(spec.Path.Value, `"`))] = true
		}
		for _, declaration := range file.Decls {
			if function, ok := declaration.(*ast.FuncDecl); ok {
				functions = append(functions, function)
				name := functionName(function)
				g.calls[name] = nil
				g.methods[function.Name.Name] = append(g.methods[function.Name.Name], name)
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if structure, ok := n.(*ast.StructType); ok {
				g.addExternalFields(structure)
			}
			return true
		})
	}
	for _, function := range functions {
		if function.Body != nil {
			g.addReferences(functionName(function), function.Body)
		}
	}
	return g
}

// functionName is Receiver.Name for a method, Name for a function.
func functionName(function *ast.FuncDecl) string {
	if function.Recv == nil {
		return function.Name.Name
	}
	receiver := function.Recv.List[0].Type
	if pointer, ok := receiver.(*ast.StarExpr); ok {
		receiver = pointer.X
	}
	if generic, ok := receiver.(*ast.IndexExpr); ok {
		receiver = generic.X
	}
	return fmt.Sprintf("%s.%s", receiver, function.Name.Name)
}

func (g *callGraph) addExternalFields(structure *ast.StructType) {
	for _, field := range structure.Fields.List {
		typ := field.Type
		if pointer, ok := typ.(*ast.StarExpr); ok {
			typ = pointer.X
		}
		if _, ok := typ.(*ast.SelectorExpr); ok {
			for _, name := range field.Names {
				g.external[name.Name] = true
			}
		}
	}
}

// addReferences records what a function refers to.
func (g *callGraph) addReferences(function string, body *ast.BlockStmt) {
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			if readsCallerDirectly(n) {
				g.sinks[function] = true
			}
			if selector, ok := n.Fun.(*ast.SelectorExpr); ok && !g.isExternal(selector.X) {
				g.calls[function] = append(g.calls[function], g.methods[selector.Sel.Name]...)
			}
		case *ast.SelectorExpr:
			if !n.Sel.IsExported() {
				g.calls[function] = append(g.calls[function], g.methods[n.Sel.Name]...)
			}
		case *ast.Ident:
			if _, ok := g.calls[n.Name]; ok {
				g.calls[function] = append(g.calls[function], n.Name)
			}
		}
		return true
	})
}

// isExternal reports whether an expression is a package, or a value of a type from one.
func (g *callGraph) isExternal(expression ast.Expr) bool {
	switch expression := expression.(type) {
	case *ast.Ident:
		return g.external[expression.Name]
	case *ast.SelectorExpr:
		return g.external[expression.Sel.Name]
	default:
		return false
	}
}

// readsCallerDirectly reports whether a call is to package auth, or for a context value
// other than the loaders.
func readsCallerDirectly(call *ast.CallExpr) bool {
	selector, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	if base, ok := selector.X.(*ast.Ident); ok && base.Name == "auth" {
		return true
	}
	if selector.Sel.Name != "Value" || len(call.Args) != 1 {
		return false
	}
	key, ok := call.Args[0].(*ast.CompositeLit)
	return !ok || fmt.Sprint(key.Type) != "loadersKey"
}

// readsCaller reports whether a function reads the caller, itself or through others.
func (g *callGraph) readsCaller(function string, seen map[string]bool) bool {
	if g.sinks[function] {
		return true
	}
	seen[function] = true
	return slices.ContainsFunc(g.calls[function], func(called string) bool { return !seen[called] && g.readsCaller(called, seen) })
}

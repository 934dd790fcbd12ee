package transport

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/99designs/gqlgen/graphql"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"github.com/vektah/gqlparser/v2/parser"

	"agentmarket.space/server/models"
)

// Limits of a document. The depth lets the standard introspection query pass.
const (
	MaxDocument  = 32 << 10 // bytes
	MaxTokens    = 1000
	maxDepth     = 15
	maxAliases   = 30
	maxDirective = 20
	maxSelection = 100  // fields, or fragments, in one selection
	maxFragments = 50   // definitions
	maxExpanded  = 5000 // fields once every fragment is spread
	passedCache  = 1000 // documents that need not be measured again
)

// Guard refuses documents that would cost more to validate or to weigh than
// any honest one. It measures them before validation, which takes time in the
// square of a document's size, and before the complexity limit, which takes
// exponential time on nested fragments. Each fragment is measured once. Add it
// after the extension that fetches persisted documents.
type Guard struct {
	passed *lru.Cache[[32]byte, struct{}]
}

// NewGuard returns a guard.
func NewGuard() (*Guard, error) {
	passed, err := lru.New[[32]byte, struct{}](passedCache)
	return &Guard{passed: passed}, err
}

// ExtensionName names the guard for the executor.
func (*Guard) ExtensionName() string { return "DocumentGuard" }

// Validate accepts every schema.
func (*Guard) Validate(graphql.ExecutableSchema) error { return nil }

// MutateOperationParameters refuses a document past its limits. One that cannot
// be parsed passes: the executor says what is wrong with it.
func (g *Guard) MutateOperationParameters(_ context.Context, request *graphql.RawParams) *gqlerror.Error {
	if len(request.Query) > MaxDocument {
		return tooMuch("it has %d bytes, at most %d are allowed", len(request.Query), MaxDocument)
	}
	sum := sha256.Sum256([]byte(request.Query))
	if g.passed.Contains(sum) {
		return nil
	}
	document, err := parser.ParseQueryWithTokenLimit(&ast.Source{Input: request.Query}, MaxTokens)
	if err != nil {
		return nil //nolint:nilerr // the executor parses it again and tells
	}
	if refused := measure(document); refused != nil {
		return refused
	}
	g.passed.Add(sum, struct{}{})
	return nil
}

func tooMuch(format string, args ...any) *gqlerror.Error {
	return &gqlerror.Error{
		Message:    "the document is too large: " + fmt.Sprintf(format, args...),
		Extensions: map[string]any{"code": string(models.InvalidInput)},
	}
}

// size is what a selection amounts to.
type size struct{ depth, fields int }

// gauge measures one document.
type gauge struct {
	fragments           map[string]*ast.FragmentDefinition
	measured            map[string]size
	open                map[string]bool // being measured: meeting one again is a cycle
	aliases, directives int
	refused             *gqlerror.Error
}

func measure(document *ast.QueryDocument) *gqlerror.Error {
	if len(document.Fragments) > maxFragments {
		return tooMuch("it defines %d fragments, at most %d are allowed", len(document.Fragments), maxFragments)
	}
	g := &gauge{fragments: map[string]*ast.FragmentDefinition{}, measured: map[string]size{}, open: map[string]bool{}}
	for _, fragment := range document.Fragments {
		g.fragments[fragment.Name] = fragment
	}
	for _, fragment := range document.Fragments { // also those that nothing spreads: validation reads them
		g.fragment(fragment.Name)
	}
	for _, operation := range document.Operations {
		g.directives += len(operation.Directives)
		total := g.selection(operation.SelectionSet)
		g.limit("depth", total.depth, maxDepth)
		g.limit("number of fields", total.fields, maxExpanded)
	}
	g.limit("number of aliases", g.aliases, maxAliases)
	g.limit("number of directives", g.directives, maxDirective)
	return g.refused
}

func (g *gauge) limit(what string, is, most int) {
	if is > most && g.refused == nil {
		g.refused = tooMuch("its %s is over %d", what, most)
	}
}

// selection measures a selection; sums stop growing past their limit.
func (g *gauge) selection(set ast.SelectionSet) size {
	g.limit("number of fields in one selection", len(set), maxSelection)
	var total size
	for _, selection := range set {
		if g.refused != nil {
			return total
		}
		var part size
		switch s := selection.(type) {
		case *ast.Field:
			if s.Alias != s.Name {
				g.aliases++
			}
			g.directives += len(s.Directives)
			part = g.selection(s.SelectionSet)
			part.depth, part.fields = part.depth+1, part.fields+1
		case *ast.InlineFragment:
			g.directives += len(s.Directives)
			part = g.selection(s.SelectionSet)
		case *ast.FragmentSpread:
			g.directives += len(s.Directives)
			part = g.fragment(s.Name)
		}
		total.depth = max(total.depth, part.depth)
		total.fields = min(total.fields+part.fields, maxExpanded+1)
	}
	return total
}

// fragment measures a fragment, once.
func (g *gauge) fragment(name string) size {
	if known, ok := g.measured[name]; ok {
		return known
	}
	definition := g.fragments[name]
	if definition == nil || g.open[name] {
		return size{} // validation refuses unknown fragments and cycles
	}
	g.open[name] = true
	g.directives += len(definition.Directives)
	total := g.selection(definition.SelectionSet)
	delete(g.open, name)
	g.measured[name] = total
	return total
}

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
	maxDocumentSize   = 32 << 10 // bytes
	MaxTokens         = 1000
	maxDepth          = 15
	maxAliases        = 30
	maxDirectives     = 20
	maxSelectionSize  = 100  // fields, or fragments, in one selection
	maxFragments      = 50   // definitions
	maxExpandedFields = 5000 // fields once every fragment is spread
	passedCacheSize   = 1000 // documents that need not be measured again
)

// DocumentLimits refuses documents that would cost more to validate or to weigh than
// any honest one. It measures them before validation, which takes time in the
// square of a document's size, and before the complexity limit, which takes
// exponential time on nested fragments. Each fragment is measured once. Add it
// after the extension that fetches persisted documents.
type DocumentLimits struct {
	passed *lru.Cache[[32]byte, struct{}]
}

// NewDocumentLimits returns a guard.
func NewDocumentLimits() (*DocumentLimits, error) {
	passed, err := lru.New[[32]byte, struct{}](passedCacheSize)
	return &DocumentLimits{passed: passed}, err
}

// ExtensionName names the guard for the executor.
func (*DocumentLimits) ExtensionName() string { return "DocumentGuard" }

// Validate accepts every schema.
func (*DocumentLimits) Validate(graphql.ExecutableSchema) error { return nil }

// MutateOperationParameters refuses a document past its limits. One that cannot
// be parsed passes: the executor says what is wrong with it.
func (g *DocumentLimits) MutateOperationParameters(_ context.Context, request *graphql.RawParams) *gqlerror.Error {
	if len(request.Query) > maxDocumentSize {
		return limitError("it has %d bytes, at most %d are allowed", len(request.Query), maxDocumentSize)
	}
	sum := sha256.Sum256([]byte(request.Query))
	if g.passed.Contains(sum) {
		return nil
	}
	document, err := parser.ParseQueryWithTokenLimit(&ast.Source{Input: request.Query}, MaxTokens)
	if err != nil {
		return nil //nolint:nilerr // the executor parses it again and tells
	}
	if refused := checkDocument(document); refused != nil {
		return refused
	}
	g.passed.Add(sum, struct{}{})
	return nil
}

func limitError(format string, args ...any) *gqlerror.Error {
	return &gqlerror.Error{
		Message:    "the document is too large: " + fmt.Sprintf(format, args...),
		Extensions: map[string]any{"code": string(models.InvalidInput)},
	}
}

// selectionSize is what a selection amounts to.
type selectionSize struct{ depth, fields int }

// documentMeasurer measures one document.
type documentMeasurer struct {
	fragments           map[string]*ast.FragmentDefinition
	measured            map[string]selectionSize
	visiting            map[string]bool // being measured: meeting one again is a cycle
	aliases, directives int
	err                 *gqlerror.Error
}

func checkDocument(document *ast.QueryDocument) *gqlerror.Error {
	if len(document.Fragments) > maxFragments {
		return limitError("it defines %d fragments, at most %d are allowed", len(document.Fragments), maxFragments)
	}
	g := &documentMeasurer{fragments: map[string]*ast.FragmentDefinition{}, measured: map[string]selectionSize{}, visiting: map[string]bool{}}
	for _, fragment := range document.Fragments {
		g.fragments[fragment.Name] = fragment
	}
	for _, fragment := range document.Fragments { // also those that nothing spreads: validation reads them
		g.measureFragment(fragment.Name)
	}
	for _, operation := range document.Operations {
		g.directives += len(operation.Directives)
		total := g.measureSelection(operation.SelectionSet)
		g.checkLimit("depth", total.depth, maxDepth)
		g.checkLimit("number of fields", total.fields, maxExpandedFields)
	}
	g.checkLimit("number of aliases", g.aliases, maxAliases)
	g.checkLimit("number of directives", g.directives, maxDirectives)
	return g.err
}

func (g *documentMeasurer) checkLimit(what string, is, most int) {
	if is > most && g.err == nil {
		g.err = limitError("its %s is over %d", what, most)
	}
}

// measureSelection measures a selection; sums stop growing past their limit.
func (g *documentMeasurer) measureSelection(set ast.SelectionSet) selectionSize {
	g.checkLimit("number of fields in one selection", len(set), maxSelectionSize)
	var total selectionSize
	for _, selection := range set {
		if g.err != nil {
			return total
		}
		var part selectionSize
		switch s := selection.(type) {
		case *ast.Field:
			if s.Alias != s.Name {
				g.aliases++
			}
			g.directives += len(s.Directives)
			part = g.measureSelection(s.SelectionSet)
			part.depth, part.fields = part.depth+1, part.fields+1
		case *ast.InlineFragment:
			g.directives += len(s.Directives)
			part = g.measureSelection(s.SelectionSet)
		case *ast.FragmentSpread:
			g.directives += len(s.Directives)
			part = g.measureFragment(s.Name)
		}
		total.depth = max(total.depth, part.depth)
		total.fields = min(total.fields+part.fields, maxExpandedFields+1)
	}
	return total
}

// measureFragment measures a fragment, once.
func (g *documentMeasurer) measureFragment(name string) selectionSize {
	if known, ok := g.measured[name]; ok {
		return known
	}
	definition := g.fragments[name]
	if definition == nil || g.visiting[name] {
		return selectionSize{} // validation refuses unknown fragments and cycles
	}
	g.visiting[name] = true
	g.directives += len(definition.Directives)
	total := g.measureSelection(definition.SelectionSet)
	delete(g.visiting, name)
	g.measured[name] = total
	return total
}

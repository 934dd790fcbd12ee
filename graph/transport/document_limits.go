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

// Document limits. The standard introspection query is within them.
const (
	maxDocumentSize   = 32 << 10 // bytes
	MaxTokens         = 1000     // lexer tokens
	maxDepth          = 15
	maxAliases        = 30
	maxDirectives     = 20
	maxSelectionSize  = 100  // fields and fragments in one selection set
	maxFragments      = 50   // fragment definitions
	maxExpandedFields = 5000 // fields after expanding all fragments
	acceptedCacheSize = 1000 // size of the cache of accepted documents
)

// DocumentLimits is a gqlgen extension that rejects oversized documents with
// INVALID_INPUT. It runs before validation, whose time is quadratic in the size of the
// document, and before the complexity limit, whose time is exponential for nested
// fragments. It measures each fragment once. Add it after the extension that loads
// persisted documents.
type DocumentLimits struct {
	accepted *lru.Cache[[32]byte, struct{}]
}

// NewDocumentLimits returns the extension.
func NewDocumentLimits() (*DocumentLimits, error) {
	accepted, err := lru.New[[32]byte, struct{}](acceptedCacheSize)
	return &DocumentLimits{accepted: accepted}, err
}

// ExtensionName implements graphql.HandlerExtension.
func (*DocumentLimits) ExtensionName() string { return "DocumentLimits" }

// Validate implements graphql.HandlerExtension.
func (*DocumentLimits) Validate(graphql.ExecutableSchema) error { return nil }

// MutateOperationParameters rejects a document that exceeds a limit. It accepts
// documents with syntax errors: the executor reports those.
func (l *DocumentLimits) MutateOperationParameters(_ context.Context, request *graphql.RawParams) *gqlerror.Error {
	if len(request.Query) > maxDocumentSize {
		return limitError("%d bytes exceed the limit of %d", len(request.Query), maxDocumentSize)
	}
	sum := sha256.Sum256([]byte(request.Query))
	if l.accepted.Contains(sum) {
		return nil
	}
	document, err := parser.ParseQueryWithTokenLimit(&ast.Source{Input: request.Query}, MaxTokens)
	if err != nil {
		return nil //nolint:nilerr // the executor reports syntax errors
	}
	if limitErr := checkDocument(document); limitErr != nil {
		return limitErr
	}
	if textErr := checkStrings(request.Query); textErr != nil {
		return textErr
	}
	l.accepted.Add(sum, struct{}{})
	return nil
}

func limitError(format string, args ...any) *gqlerror.Error {
	return &gqlerror.Error{
		Message:    "the document is too large: " + fmt.Sprintf(format, args...),
		Extensions: map[string]any{"code": string(models.InvalidInput)},
	}
}

// selectionSize is the size of a selection set with its fragments expanded.
type selectionSize struct{ depth, fields int }

// documentMeasurer measures one document.
type documentMeasurer struct {
	fragments           map[string]*ast.FragmentDefinition
	measured            map[string]selectionSize
	visiting            map[string]bool // fragments being measured, to detect cycles
	aliases, directives int
	err                 *gqlerror.Error
}

func checkDocument(document *ast.QueryDocument) *gqlerror.Error {
	if len(document.Fragments) > maxFragments {
		return limitError("%d fragments exceed the limit of %d", len(document.Fragments), maxFragments)
	}
	m := &documentMeasurer{fragments: map[string]*ast.FragmentDefinition{}, measured: map[string]selectionSize{}, visiting: map[string]bool{}}
	for _, fragment := range document.Fragments {
		m.fragments[fragment.Name] = fragment
	}
	for _, fragment := range document.Fragments { // unused ones too: validation reads them
		m.measureFragment(fragment.Name)
	}
	for _, operation := range document.Operations {
		m.directives += len(operation.Directives)
		total := m.measureSelection(operation.SelectionSet)
		m.checkLimit("depth", total.depth, maxDepth)
		m.checkLimit("number of fields", total.fields, maxExpandedFields)
	}
	m.checkLimit("number of aliases", m.aliases, maxAliases)
	m.checkLimit("number of directives", m.directives, maxDirectives)
	return m.err
}

func (m *documentMeasurer) checkLimit(name string, value, limit int) {
	if value > limit && m.err == nil {
		m.err = limitError("its %s exceeds %d", name, limit)
	}
}

// measureSelection returns the size of a selection set. The number of fields stops
// growing just above its limit.
func (m *documentMeasurer) measureSelection(set ast.SelectionSet) selectionSize {
	m.checkLimit("number of fields in one selection", len(set), maxSelectionSize)
	var total selectionSize
	for _, selection := range set {
		if m.err != nil {
			return total
		}
		var part selectionSize
		switch s := selection.(type) {
		case *ast.Field:
			if s.Alias != s.Name {
				m.aliases++
			}
			m.directives += len(s.Directives)
			part = m.measureSelection(s.SelectionSet)
			part.depth, part.fields = part.depth+1, part.fields+1
		case *ast.InlineFragment:
			m.directives += len(s.Directives)
			part = m.measureSelection(s.SelectionSet)
		case *ast.FragmentSpread:
			m.directives += len(s.Directives)
			part = m.measureFragment(s.Name)
		}
		total.depth = max(total.depth, part.depth)
		total.fields = min(total.fields+part.fields, maxExpandedFields+1)
	}
	return total
}

// measureFragment returns the size of a fragment, from memory if it was measured
// before.
func (m *documentMeasurer) measureFragment(name string) selectionSize {
	if size, ok := m.measured[name]; ok {
		return size
	}
	definition := m.fragments[name]
	if definition == nil || m.visiting[name] {
		return selectionSize{} // validation rejects unknown fragments and cycles
	}
	m.visiting[name] = true
	m.directives += len(definition.Directives)
	total := m.measureSelection(definition.SelectionSet)
	delete(m.visiting, name)
	m.measured[name] = total
	return total
}

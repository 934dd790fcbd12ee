package graph

import (
	"strings"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/validator/core"
	"github.com/vektah/gqlparser/v2/validator/rules"
)

// validationRules returns the rules of the GraphQL specification for documents. The rule of
// gqlparser for subscriptions compares the names of root fields, so it accepts two fields
// with the same name and different aliases, which gqlgen cannot execute.
func validationRules() *rules.Rules {
	all := rules.NewDefaultRules()
	all.ReplaceRule(rules.SingleFieldSubscriptionsRule.Name, requireSingleRootField)
	return all
}

// requireSingleRootField rejects a subscription with more than one response key at its
// root, with an introspection field there, or with @skip or @include there, which could
// leave no field (GraphQL specification of September 2025, 5.2.4.1).
func requireSingleRootField(observers *core.Events, addError core.AddErrFunc) {
	observers.OnOperation(func(_ *core.Walker, operation *ast.OperationDefinition) {
		if operation.Operation != ast.Subscription {
			return
		}
		root := &subscriptionRoot{addError: addError, visited: map[string]bool{}}
		root.check(operation.SelectionSet)
	})
}

// subscriptionRoot is the root selection of a subscription.
type subscriptionRoot struct {
	addError core.AddErrFunc
	visited  map[string]bool // fragments
	first    *ast.Field
}

func (s *subscriptionRoot) check(set ast.SelectionSet) {
	for _, selection := range set {
		switch selection := selection.(type) {
		case *ast.Field:
			s.checkDirectives(selection.Directives)
			s.checkField(selection)
		case *ast.InlineFragment:
			s.checkDirectives(selection.Directives)
			s.check(selection.SelectionSet)
		case *ast.FragmentSpread:
			s.checkDirectives(selection.Directives)
			if selection.Definition != nil && !s.visited[selection.Name] { // another rule rejects unknown fragments and cycles
				s.visited[selection.Name] = true
				s.check(selection.Definition.SelectionSet)
			}
		}
	}
}

func (s *subscriptionRoot) checkField(field *ast.Field) {
	if s.first == nil {
		s.first = field
	}
	switch {
	case strings.HasPrefix(field.Name, "__"):
		s.addError(core.Message("a subscription must not select %s at its root", field.Name), core.At(field.Position))
	case field.Alias != s.first.Alias:
		s.addError(core.Message("a subscription must select one field at its root, not %s and %s", s.first.Alias, field.Alias), core.At(field.Position))
	}
}

func (s *subscriptionRoot) checkDirectives(directives ast.DirectiveList) {
	for _, directive := range directives {
		if directive.Name == "skip" || directive.Name == "include" {
			s.addError(core.Message("a subscription must not have @%s at its root", directive.Name), core.At(directive.Position))
		}
	}
}

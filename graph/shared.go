package graph

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"sync"

	"github.com/99designs/gqlgen/graphql"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/vektah/gqlparser/v2/ast"

	"agentmarket.space/server/auth"
	"agentmarket.space/server/events"
	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/models"
)

// keptAnswers is how many shared answers are kept: those of the last events, for
// the subscribers that have not got there yet.
const keptAnswers = 1024

// sharing has what a posted task looks like rendered once for all subscribers
// that ask with the same document, however many there are. Who is party to a
// task may see more of it and gets an answer of its own.
type sharing struct {
	answers *lru.Cache[answerKey, *sharedAnswer]
}

// answerKey names an answer. Subscribers that hear of an event as it happens
// have the same event in hand; one that reads it from the log has another, since
// its task may have moved on.
type answerKey struct {
	document [sha256.Size]byte
	event    *models.Event
}

// sharedAnswer is rendered by the first who asks for it.
type sharedAnswer struct {
	once     sync.Once
	response *graphql.Response
}

func newSharing() (*sharing, error) {
	answers, err := lru.New[answerKey, *sharedAnswer](keptAnswers)
	return &sharing{answers: answers}, err
}

type tapKey struct{}

// tap lets taskPosted hand its events over unrendered, or be run for one event
// that is known already.
type tap struct {
	events *events.Subscription // set by taskPosted
	one    *models.Event        // what to answer with instead
}

func tapOf(ctx context.Context) *tap {
	f, ok := ctx.Value(tapKey{}).(*tap)
	if !ok {
		return nil
	}
	return f
}

// around answers a subscription: by itself when it is one to posted tasks.
func (s *sharing) around(ctx context.Context, next graphql.OperationHandler) graphql.ResponseHandler {
	begun := &tap{}
	responses := next(context.WithValue(ctx, tapKey{}, begun))
	if begun.events == nil { // another subscription, or refused
		return responses
	}
	actor, _ := auth.FromContext(ctx)
	document, ok := identity(graphql.GetOperationContext(ctx))
	return func(ctx context.Context) *graphql.Response {
		event, more := <-begun.events.C
		if !more {
			if err := begun.events.Err(); err != nil {
				transport.StreamError(ctx, Present(ctx, err))
			}
			return nil
		}
		if ok && !event.Task.IsParty(actor.AgentID) {
			if response := s.answer(ctx, answerKey{document, event}, next); len(response.Errors) == 0 {
				return response
			}
		}
		return render(ctx, event, next)
	}
}

// answer returns what everybody may see of an event.
func (s *sharing) answer(ctx context.Context, key answerKey, next graphql.OperationHandler) *graphql.Response {
	answer, found := s.answers.Get(key)
	if !found {
		answer = &sharedAnswer{}
		if earlier, had, _ := s.answers.PeekOrAdd(key, answer); had {
			answer = earlier
		}
	}
	answer.once.Do(func() { // for nobody in particular, whoever of those that wait goes away
		answer.response = render(auth.WithoutActor(context.WithoutCancel(ctx)), key.event, next)
	})
	return answer.response
}

// render runs a subscription for one event.
func render(ctx context.Context, event *models.Event, next graphql.OperationHandler) *graphql.Response {
	ctx = context.WithValue(ctx, tapKey{}, &tap{one: event})
	return next(ctx)(ctx)
}

// identity is the same for operations that render an event alike: their
// document, and the variables that are used beyond the subscription's own
// arguments.
func identity(o *graphql.OperationContext) (sum [sha256.Size]byte, ok bool) {
	used := map[string]any{}
	for _, selection := range o.Operation.SelectionSet {
		field, plain := selection.(*ast.Field)
		if !plain || len(field.Directives) > 0 {
			return sum, false
		}
		noteVariables(field.SelectionSet, o.Variables, used)
	}
	variables, err := json.Marshal(used)
	if err != nil {
		return sum, false
	}
	return sha256.Sum256(bytes.Join([][]byte{[]byte(o.RawQuery), []byte(o.OperationName), variables}, []byte{0})), true
}

// noteVariables adds the variables that a selection uses.
func noteVariables(set ast.SelectionSet, values, used map[string]any) {
	for _, selection := range set {
		switch selection := selection.(type) {
		case *ast.Field:
			noteArguments(selection.Arguments, values, used)
			noteDirectives(selection.Directives, values, used)
			noteVariables(selection.SelectionSet, values, used)
		case *ast.InlineFragment:
			noteDirectives(selection.Directives, values, used)
			noteVariables(selection.SelectionSet, values, used)
		case *ast.FragmentSpread:
			noteDirectives(selection.Directives, values, used)
			noteVariables(selection.Definition.SelectionSet, values, used)
		}
	}
}

func noteDirectives(directives ast.DirectiveList, values, used map[string]any) {
	for _, directive := range directives {
		noteArguments(directive.Arguments, values, used)
	}
}

func noteArguments(arguments ast.ArgumentList, values, used map[string]any) {
	for _, argument := range arguments {
		noteValue(argument.Value, values, used)
	}
}

func noteValue(value *ast.Value, values, used map[string]any) {
	if value.Kind == ast.Variable {
		used[value.Raw] = values[value.Raw]
	}
	for _, child := range value.Children {
		noteValue(child.Value, values, used)
	}
}

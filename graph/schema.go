package graph

import (
	"maps"
	"strings"

	"github.com/99designs/gqlgen/graphql"

	"agentmarket.space/server/graph/generated"
)

// Schema returns the text of schema.graphqls as of this build.
func Schema() string {
	return generated.NewExecutableSchema(generated.Config{}).Schema().Query.Position.Src.Input
}

// newExecutableSchema returns the schema that the server offers and executes. gqlparser adds
// @defer to every schema, which the transports do not serve: without it, validation rejects
// a document that uses it, and introspection does not list it.
func newExecutableSchema(config generated.Config) graphql.ExecutableSchema {
	offered := *generated.NewExecutableSchema(config).Schema()
	offered.Directives = maps.Clone(offered.Directives)
	delete(offered.Directives, "defer")
	config.Schema = &offered
	return generated.NewExecutableSchema(config)
}

// SubscriptionField is a subscription field of the schema.
type SubscriptionField struct{ Name, Description string }

// Subscriptions returns the subscription fields with their descriptions.
func (s *Server) Subscriptions() []SubscriptionField {
	var all []SubscriptionField
	for _, field := range s.schema.Subscription.Fields {
		all = append(all, SubscriptionField{field.Name, strings.Join(strings.Fields(field.Description), " ")})
	}
	return all
}

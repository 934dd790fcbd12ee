package graph

import (
	"strings"

	"agentmarket.space/server/graph/generated"
)

// Schema is the text of schema.graphqls that the server was built with.
func Schema() string {
	return generated.NewExecutableSchema(generated.Config{}).Schema().Query.Position.Src.Input
}

// SubscriptionField is a subscription of the schema.
type SubscriptionField struct{ Name, Description string }

// Subscriptions are the subscriptions, with what the schema says of them.
func (s *Server) Subscriptions() []SubscriptionField {
	var all []SubscriptionField
	for _, field := range s.schema.Subscription.Fields {
		all = append(all, SubscriptionField{field.Name, strings.Join(strings.Fields(field.Description), " ")})
	}
	return all
}

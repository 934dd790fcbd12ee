package graph

import (
	"strings"

	"agentmarket.space/server/graph/generated"
)

// Schema returns the text of schema.graphqls as of this build.
func Schema() string {
	return generated.NewExecutableSchema(generated.Config{}).Schema().Query.Position.Src.Input
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

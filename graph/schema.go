package graph

import (
	"strings"

	"agentmarket.space/server/graph/generated"
)

// Schema is the text of schema.graphqls that the server was built with.
func Schema() string {
	return generated.NewExecutableSchema(generated.Config{}).Schema().Query.Position.Src.Input
}

// Stream is a subscription of the schema.
type Stream struct{ Name, Description string }

// Streams are the subscriptions, with what the schema says of them.
func (s *Server) Streams() []Stream {
	var all []Stream
	for _, field := range s.schema.Subscription.Fields {
		all = append(all, Stream{field.Name, strings.Join(strings.Fields(field.Description), " ")})
	}
	return all
}

package graph

import "strings"

// SDL is the text of the schema, as it was written.
func (s *Server) SDL() string { return s.schema.Query.Position.Src.Input }

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

package graph

import (
	"bytes"
	"strings"

	"github.com/vektah/gqlparser/v2/formatter"
)

// SDL is the schema in the schema definition language, with its descriptions.
func (s *Server) SDL() []byte {
	var out bytes.Buffer
	formatter.NewFormatter(&out, formatter.WithIndent("  ")).FormatSchema(s.schema)
	return out.Bytes()
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

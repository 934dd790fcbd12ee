// Package scalar has the scalar types of the schema that gqlgen's own do not fit.
package scalar

import (
	"github.com/99designs/gqlgen/graphql"

	"agentmarket.space/server/models"
)

// MarshalID writes an ID.
func MarshalID(id string) graphql.Marshaler { return graphql.MarshalID(id) }

// UnmarshalID reads an ID and returns it as [models.CanonicalID] does. Everything that
// gets an ID from a document or a variable gets it from here.
func UnmarshalID(value any) (string, error) {
	id, err := graphql.UnmarshalID(value)
	return models.CanonicalID(id), err
}

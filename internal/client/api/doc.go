// Package api is the public GraphQL API of a market as Go functions, generated
// from operations.graphql and the schema. It knows nothing of the server.
package api

//go:generate go tool -modfile=../../../tools/go.mod genqlient

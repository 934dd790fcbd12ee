// Package api contains a Go function for each GraphQL operation of the commands. It
// is generated from operations.graphql and the schema, and does not import the server.
package api

//go:generate go tool -modfile=../../../tools/go.mod genqlient

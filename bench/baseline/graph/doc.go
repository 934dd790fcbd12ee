// Package graph is the schema of the baseline server: code as gqlgen generates
// it, and the plainest resolvers that answer it.
package graph

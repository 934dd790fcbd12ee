// Package graph is the GraphQL door: resolvers for schema.graphqls that
// translate, call the market and translate back, and the server that executes
// documents within limits. Rules live in the market; what a caller may see of a
// task or an agent is settled there and in the types of the schema.
//
// The executable schema is generated into graph/generated, transports live in
// graph/transport.
package graph

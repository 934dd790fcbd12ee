// Package graph is the GraphQL API: the resolvers for schema.graphqls and the server
// that executes documents within limits. Resolvers translate between GraphQL and the
// market; business rules and access rules live in the market and in the schema.
//
// The executable schema is generated into graph/generated. The response cache is in
// graph/cache, subscriptions are in graph/fanout, transports in graph/transport.
package graph

// Package explorer serves a GraphiQL page for the GraphQL API: schema documentation,
// live subscriptions over graphql-transport-ws, and a field for the API key.
//
// All files of the page are embedded. The page connects only to the host that served
// it, which its Content-Security-Policy enforces: it works offline, and the API key is
// sent to no other server. The package knows only the path of the GraphQL endpoint.
package explorer

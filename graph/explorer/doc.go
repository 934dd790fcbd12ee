// Package explorer serves a page on which a person tries the GraphQL API by
// hand: GraphiQL with the schema's documentation, live subscriptions over
// graphql-transport-ws, and a box for the API key.
//
// Everything the page needs is embedded. It sends nothing to any host but the
// one that served it, which its Content-Security-Policy enforces, so it works
// offline and a key typed into it stays between the browser and this server. It
// knows the path of the GraphQL endpoint and nothing else of the module.
package explorer

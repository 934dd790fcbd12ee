// Package transport connects net/http to the GraphQL executor. It serves queries
// and mutations over HTTP (the GraphQL-over-HTTP specification), subscriptions over
// WebSocket (graphql-transport-ws and the older graphql-ws) and server-sent events,
// and limits the size of documents before they are validated. It knows nothing of
// the marketplace.
//
// # Close codes
//
// A socket is closed with the codes of the protocol (4400, 4401, 4403, 4408, 4409,
// 4429) and with 1001 when the server shuts down, 1013 when there are too many
// connections, and 4401 when the API key of an open socket is revoked.
//
// # Slow clients
//
// Each client has a bounded send queue: 64 messages or 256 KiB, in addition to what
// its sources buffer. Only the client's own operations wait for that queue. A client
// that stops reading is disconnected after [Options.WriteTimeout]. A client that
// reads too slowly has its subscription closed with SLOW_CONSUMER.
//
// # Idle subscriptions
//
// An idle subscription has no goroutine and no buffer. See [Source].
package transport

// Package transport stands between net/http and the GraphQL executor: queries
// and mutations over HTTP as the GraphQL-over-HTTP specification has it,
// subscriptions over WebSocket (graphql-transport-ws and the older graphql-ws)
// and over server-sent events, and the guard that measures a document before it
// is validated. It knows GraphQL and connections, and nothing of the market.
//
// Close codes of a socket, beside those of the protocol (4400, 4401, 4403, 4408,
// 4409, 4429): 1001 the server stops, 1013 too many connections, 4401 also when
// the API key of a live socket is revoked. A client that stops reading is cut
// off after the write time; one that reads too slowly has its subscription ended
// with SLOW_CONSUMER. Neither delays another: what waits for a client is bounded
// (64 messages or 256 KiB, and what its sources keep), and nobody waits for it
// but its own operations.
//
// A subscription costs a socket nothing while nothing happens: see [Source].
package transport

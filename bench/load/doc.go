// Package load is the client side of the benchmark: it sends requests, holds
// subscriptions and checks every answer.
//
// Client and server share one machine, and net/http's client costs more than
// some of the answers it would fetch. So this package speaks just as much
// HTTP/1.1, WebSocket and server-sent events as a loopback benchmark needs,
// renders requests once and stamps what differs into them. It speaks to
// 127.0.0.1 only, and every run ends by itself.
package load

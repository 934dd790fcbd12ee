// Package load is the client side of the benchmark: it sends requests, holds subscriptions
// and checks every response.
//
// Client and server share one machine, and net/http's client costs more than some of the
// requests it would send. This package therefore implements only the parts of HTTP/1.1,
// WebSocket and server-sent events that a loopback benchmark needs. It renders requests
// once and stamps a number into them. It connects to 127.0.0.1 only, and every run has an
// end.
package load

// Package outbound is the HTTP client for URLs that third parties provide: webhooks
// and the endpoints of agents. It also signs the requests.
//
// The client rejects an address that is not public when it dials, after name
// resolution, so neither a redirect nor a DNS change can bypass the check. It
// follows no redirects, uses no proxy, verifies TLS, and limits the time and the
// size of a response.
package outbound

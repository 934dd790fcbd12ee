// Package outbound is the one HTTP client that may call addresses which
// strangers gave: webhooks and the endpoints of agents. It refuses every address
// that is not public at the moment of dialling, where names are resolved and
// neither a redirect nor a second look-up can slip by; follows no redirect, asks
// no proxy, verifies TLS, and bounds time and size. It signs what is sent. It
// knows nothing of who is called or why.
package outbound

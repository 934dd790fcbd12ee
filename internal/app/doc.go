// Package app wires the server: it opens the store, makes the parts, joins them
// and hands out one [App] with an http.Handler. What concerns every request
// alike is here too: request ids, logs and metrics, who is calling, rate limits,
// deadlines and headers. It holds no rule of the marketplace.
package app

// Package app wires the server. It opens the database, creates the components and
// connects them, and returns an [App] with an http.Handler. It also contains the
// HTTP middleware: request ids, access log, metrics, authentication, rate limits,
// deadlines and security headers. It contains no rules of the marketplace.
package app

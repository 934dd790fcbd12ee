// Package executor runs hired agents: it calls the HTTPS endpoint of an agent
// through package outbound, or runs the system prompt of an agent on Claude.
// Responses are untrusted: their time and size are limited, and the result must be
// text. The package does not move credits and stores nothing.
package executor

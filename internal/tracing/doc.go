// Package tracing records OpenTelemetry spans of requests, operations, transactions,
// webhook deliveries and agent runs. Without a collector it is a no-op that costs one
// context lookup per span.
//
// Span names and attributes never contain keys, secrets or client input, except the
// request id.
package tracing

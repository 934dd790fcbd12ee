// Package idempotency runs an operation at most once per Idempotency-Key.
//
// [Run] claims the request's key, runs the operation and stores its response, all
// in one transaction. A later request with the same key and the same input gets the
// stored response and is marked as a replay. Responses are stored encrypted, because
// some of them hold API keys and webhook secrets.
//
// An operation that spans several transactions uses a [Claim] directly: [Acquire] in
// the first transaction, [Save] in the last.
//
// Lock order: a transaction locks its key before any other row.
package idempotency

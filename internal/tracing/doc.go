// Package tracing tells, as OpenTelemetry spans, where the time of a request goes and
// what followed from it: the operation, its transactions, the webhooks and the runs of
// agents. It is off unless there is somewhere to send them, and costs a look into the
// context then.
//
// Spans say what was done and how it ended, in words of ours: no key, no secret and
// nothing that a client wrote is ever in them but the id of its request.
package tracing

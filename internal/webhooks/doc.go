// Package webhooks tells agents of tasks that ask for what they can do, and of what
// becomes of their own tasks when they ask for that.
//
// The verb that posts a task calls [Webhooks.Announce] in its transaction, which
// leaves one job. That job finds the agents whose capabilities overlap those of
// the task, the poster apart, and leaves a delivery and a job for each. Such a
// job sends one POST, outside any transaction, and writes down what came of it:
// delivered, tried again later, or given up. Delivery is at least once: a crash
// between the answer and its record sends the same delivery again, with the same
// body and the same X-AgentMarket-Delivery, by which a receiver knows it.
//
// An event that was asked for goes the same way, to the poster and the worker of its
// task, in jobs of kinds of their own.
//
// # What is sent
//
// The body is JSON with its keys in a fixed order, the same bytes at every try:
//
//	{"event":"task.posted","task":{"id":…,"title":…,"description":…,"budget":…,"required_capabilities":[…],"created_at":…},"marketplace_url":…}
//
// The headers are
//
//	X-AgentMarket-Event      what it tells of, like task.posted
//	X-AgentMarket-Signature  sha256= and the HMAC-SHA256 of the body in hex, keyed with the secret's text
//	X-AgentMarket-Delivery   the id of the delivery, the same at every try
//	X-AgentMarket-Attempt    which try this is, from 1
//	X-AgentMarket-Timestamp  when it was sent, in Unix seconds
//	webhook-id, webhook-timestamp, webhook-signature as in Standard Webhooks,
//	keyed with the bytes that the secret's base64 part stands for
//
// While a replaced secret still signs (see [Webhooks.Rotate]), webhook-signature
// carries both signatures, and X-AgentMarket-Signature, which has room for one,
// is made with the old secret until the overlap ends.
//
// # What counts
//
// Only 2xx is a success, and redirects are not followed. 410 suspends the
// webhook at once, five days of nothing but failures do so in the end, until its
// owner resumes it. What is due to a suspended webhook is kept as failed and can be
// sent again later.
//
// Addresses are dialled through package outbound only, which refuses those that
// are not public. No order is promised.
package webhooks

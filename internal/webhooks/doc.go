// Package webhooks delivers task events to agents over HTTPS. Agents with a
// matching capability receive posted tasks. The poster and the worker of a task
// receive the later events they subscribe to.
//
// The transaction that appends an event calls [Webhooks.Notify], which enqueues
// one job. That job creates a delivery for each recipient and a job that sends
// it. Each attempt sends one POST outside any transaction and then records its
// outcome: delivered, retry later, or failed. Delivery is at least once: after a
// crash between the response and its record, the same request is sent again with
// the same body and the same X-AgentMarket-Delivery. Receivers use that header to
// detect duplicates. Deliveries may arrive in any order.
//
// # Requests
//
// The body is JSON with its keys in a fixed order. It is the same for every
// attempt of a delivery:
//
//	{"event":"task.posted","task":{"id":…,"title":…,"description":…,"budget":…,"required_capabilities":[…],"created_at":…},"marketplace_url":…}
//
// The headers are
//
//	X-AgentMarket-Event      the event, for example task.posted
//	X-AgentMarket-Signature  sha256= and the hex HMAC-SHA256 of the body; the key is the text of the secret
//	X-AgentMarket-Delivery   the delivery id, the same for every attempt
//	X-AgentMarket-Attempt    the number of the attempt, from 1
//	X-AgentMarket-Timestamp  the time of the request in Unix seconds
//	webhook-id, webhook-timestamp, webhook-signature as in Standard Webhooks;
//	the key is the decoded base64 part of the secret
//
// After [Webhooks.RotateSecret] the replaced secret stays valid for an overlap.
// During the overlap webhook-signature contains the signatures of both, and after several
// rotations of all whose overlap has not ended. X-AgentMarket-Signature has room for one
// and uses the oldest of them.
//
// # Success and failure
//
// Only a 2xx response is a success. Redirects are not followed. A 410 response
// suspends the webhook at once, and five days without a success suspend it too,
// until its owner resumes it. Deliveries to a suspended webhook are stored as
// failed and can be redelivered.
//
// Requests are sent by package outbound, which rejects addresses that are not
// public.
package webhooks

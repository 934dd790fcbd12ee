package webhooks

import (
	"context"

	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/tracing"
)

// Span names.
const (
	spanMatch   = "match webhooks"
	spanDeliver = "deliver webhook"
)

// startAttemptSpan starts the span of an attempt. The first attempt is part of
// the trace that appended the event. Later attempts can be hours apart: each
// starts its own trace, linked to the previous attempt.
func (w *Webhooks) startAttemptSpan(ctx context.Context, args *DeliverArgs) (context.Context, tracing.Span) {
	start := w.tracer.StartChild
	if args.isLowPriority() {
		start = w.tracer.StartLinked
	}
	ctx, span := start(ctx, spanDeliver, args.Trace)
	span.SetString("agentmarket.delivery", args.DeliveryID)
	span.SetInt("agentmarket.attempt", args.Attempt)
	return ctx, span
}

// endRequestSpan records the result of a request and ends its span.
func endRequestSpan(span tracing.Span, response *outbound.Response, err error) {
	if err != nil {
		span.SetError("no response")
	} else {
		span.SetInt("http.response.status_code", response.Status)
	}
	span.End()
}

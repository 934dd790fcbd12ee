package webhooks

import (
	"context"

	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/tracing"
)

// Names of spans.
const (
	spanMatch   = "match webhooks"
	spanDeliver = "deliver webhook"
)

// startAttemptSpan begins the span of a try. The first is part of the trace that the event
// was written in; a later one can come hours after and is a trace of its own that names
// the try before it.
func (w *Webhooks) startAttemptSpan(ctx context.Context, args *DeliverArgs) (context.Context, tracing.Span) {
	begin := w.tracer.StartChild
	if args.Attempt > 1 || args.BulkRedelivery {
		begin = w.tracer.StartLinked
	}
	ctx, span := begin(ctx, spanDeliver, args.Trace)
	span.SetString("agentmarket.delivery", args.DeliveryID)
	span.SetInt("agentmarket.attempt", args.Attempt)
	return ctx, span
}

// endRequestSpan ends the span of a request with what came of it.
func endRequestSpan(span tracing.Span, response *outbound.Response, err error) {
	if err != nil {
		span.SetError("no answer")
	} else {
		span.SetInt("http.response.status_code", response.Status)
	}
	span.End()
}

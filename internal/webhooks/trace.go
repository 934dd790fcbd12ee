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

// continueTrace begins the span of a try. The first is part of the trace that the event
// was written in; a later one can come hours after and is a trace of its own that names
// the try before it.
func (w *Webhooks) continueTrace(ctx context.Context, args *DeliverArgs) (context.Context, tracing.Span) {
	begin := w.tracer.Continue
	if args.Attempt > 1 || args.Again {
		begin = w.tracer.Link
	}
	ctx, span := begin(ctx, spanDeliver, args.Trace)
	span.Say("agentmarket.delivery", args.DeliveryID)
	span.Count("agentmarket.attempt", args.Attempt)
	return ctx, span
}

// endCall ends the span of a request with what came of it.
func endCall(span tracing.Span, response *outbound.Response, err error) {
	if err != nil {
		span.Fail("no answer")
	} else {
		span.Count("http.response.status_code", response.Status)
	}
	span.End()
}

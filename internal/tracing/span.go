package tracing

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// tracerName names the program as what makes the spans.
const tracerName = "agentmarket.space/server"

// Span is a piece of work with a beginning and an end. The zero value is one that is
// not noted.
type Span struct{ span trace.Span }

// Start begins a piece of the work that ctx is about, and returns the context of what is
// a piece of that. Work that is not traced has none. It may begin after the whole has
// ended.
func Start(ctx context.Context, name string) (context.Context, Span) {
	return start(ctx, name, trace.SpanKindInternal)
}

// StartClient is Start for a call to another program.
func StartClient(ctx context.Context, name string) (context.Context, Span) {
	return start(ctx, name, trace.SpanKindClient)
}

func start(ctx context.Context, name string, kind trace.SpanKind) (context.Context, Span) {
	whole := trace.SpanFromContext(ctx)
	if !whole.SpanContext().IsSampled() {
		return ctx, Span{}
	}
	ctx, span := whole.TracerProvider().Tracer(tracerName).Start(ctx, name, trace.WithSpanKind(kind))
	return ctx, Span{span}
}

// FromContext is the span that ctx is about.
func FromContext(ctx context.Context) Span {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		return Span{span}
	}
	return Span{}
}

// WithoutSpan returns a context that is about no work any more: what begins in it is a
// trace of its own.
func WithoutSpan(ctx context.Context) context.Context {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return ctx
	}
	return trace.ContextWithSpan(ctx, nil)
}

// IsRecording reports whether anything that is said of the span is kept.
func (s Span) IsRecording() bool { return s.span != nil }

// Rename gives the span another name.
func (s Span) Rename(name string) {
	if s.span != nil {
		s.span.SetName(name)
	}
}

// SetString notes a text.
func (s Span) SetString(name, text string) {
	if s.span != nil {
		s.span.SetAttributes(attribute.String(name, text))
	}
}

// SetInt notes a number.
func (s Span) SetInt(name string, n int) {
	if s.span != nil {
		s.span.SetAttributes(attribute.Int(name, n))
	}
}

// SetError notes that it failed, and with which code.
func (s Span) SetError(code string) {
	if s.span != nil {
		s.span.SetStatus(codes.Error, code)
	}
}

// End ends it.
func (s Span) End() {
	if s.span != nil {
		s.span.End()
	}
}

// StartRequest begins the trace of a request, or goes on with the one that its traceparent
// names. It is called by its method and its door until its route is known: a stranger may
// write anything into a path, and into a tracestate, which is left out. A nil tracer
// begins none.
func (t *Tracer) StartRequest(r *http.Request, method, door string) (context.Context, Span) {
	if t == nil {
		return r.Context(), Span{}
	}
	ctx := trace.ContextWithRemoteSpanContext(r.Context(), parseTraceparent(r.Header.Get("traceparent")))
	return t.start(ctx, method+" "+door, trace.WithSpanKind(trace.SpanKindServer))
}

// Start begins a piece of what ctx is about, or a trace when it is about nothing.
func (t *Tracer) Start(ctx context.Context, name string) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	return t.start(ctx, name, trace.WithSpanKind(trace.SpanKindServer))
}

// StartChild begins work that was asked for by what [Traceparent] returned. Nothing is noted
// when that was empty.
func (t *Tracer) StartChild(ctx context.Context, name, parent string) (context.Context, Span) {
	if t == nil || parent == "" {
		return ctx, Span{}
	}
	return t.start(trace.ContextWithRemoteSpanContext(ctx, parseTraceparent(parent)), name, trace.WithSpanKind(trace.SpanKindConsumer))
}

// StartLinked is StartChild for work that comes long after: it is a trace of its own, which
// names what asked for it.
func (t *Tracer) StartLinked(ctx context.Context, name, parent string) (context.Context, Span) {
	if t == nil || parent == "" {
		return ctx, Span{}
	}
	return t.start(ctx, name, trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindConsumer), trace.WithLinks(trace.Link{SpanContext: parseTraceparent(parent)}))
}

func (t *Tracer) start(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, Span) {
	ctx, span := t.provider.Tracer(tracerName).Start(ctx, name, options...)
	return ctx, Span{span}
}

// Traceparent names what ctx is about for whoever goes on with it elsewhere, as the W3C's
// traceparent does; empty when it is not traced.
func Traceparent(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ""
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier["traceparent"]
}

func parseTraceparent(parent string) trace.SpanContext {
	none := context.Background() //nolint:forbidigo // only what is written into it is read
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(none, propagation.MapCarrier{"traceparent": parent}))
}

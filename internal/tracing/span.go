package tracing

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// scope names the program as what makes the spans.
const scope = "agentmarket.space/server"

// Span is a piece of work with a beginning and an end. The zero value is one that is
// not noted.
type Span struct{ span trace.Span }

// Start begins a piece of the work that ctx is about, and returns the context of what is
// a piece of that. Work that is not traced has none. It may begin after the whole has
// ended.
func Start(ctx context.Context, name string) (context.Context, Span) {
	return start(ctx, name, trace.SpanKindInternal)
}

// Call is Start for a call to another program.
func Call(ctx context.Context, name string) (context.Context, Span) {
	return start(ctx, name, trace.SpanKindClient)
}

func start(ctx context.Context, name string, kind trace.SpanKind) (context.Context, Span) {
	whole := trace.SpanFromContext(ctx)
	if !whole.SpanContext().IsSampled() {
		return ctx, Span{}
	}
	ctx, span := whole.TracerProvider().Tracer(scope).Start(ctx, name, trace.WithSpanKind(kind))
	return ctx, Span{span}
}

// Of is the span that ctx is about.
func Of(ctx context.Context) Span {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		return Span{span}
	}
	return Span{}
}

// Without returns a context that is about no work any more: what begins in it is a
// trace of its own.
func Without(ctx context.Context) context.Context {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return ctx
	}
	return trace.ContextWithSpan(ctx, nil)
}

// Noted reports whether anything that is said of the span is kept.
func (s Span) Noted() bool { return s.span != nil }

// Rename gives the span another name.
func (s Span) Rename(name string) {
	if s.span != nil {
		s.span.SetName(name)
	}
}

// Say notes a text.
func (s Span) Say(name, text string) {
	if s.span != nil {
		s.span.SetAttributes(attribute.String(name, text))
	}
}

// Count notes a number.
func (s Span) Count(name string, n int) {
	if s.span != nil {
		s.span.SetAttributes(attribute.Int(name, n))
	}
}

// Fail notes that it failed, and with which code.
func (s Span) Fail(code string) {
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

// Request begins the trace of a request, or goes on with the one that its traceparent
// names. It is called by its method and its door until its route is known: a stranger may
// write anything into a path, and into a tracestate, which is left out. A nil tracer
// begins none.
func (t *Tracer) Request(r *http.Request, method, door string) (context.Context, Span) {
	if t == nil {
		return r.Context(), Span{}
	}
	ctx := trace.ContextWithRemoteSpanContext(r.Context(), spanContext(r.Header.Get("traceparent")))
	return t.begin(ctx, method+" "+door, trace.WithSpanKind(trace.SpanKindServer))
}

// Begin begins a piece of what ctx is about, or a trace when it is about nothing.
func (t *Tracer) Begin(ctx context.Context, name string) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	return t.begin(ctx, name, trace.WithSpanKind(trace.SpanKindServer))
}

// Continue begins work that was asked for by what [Parent] returned. Nothing is noted
// when that was empty.
func (t *Tracer) Continue(ctx context.Context, name, parent string) (context.Context, Span) {
	if t == nil || parent == "" {
		return ctx, Span{}
	}
	return t.begin(trace.ContextWithRemoteSpanContext(ctx, spanContext(parent)), name, trace.WithSpanKind(trace.SpanKindConsumer))
}

// Link is Continue for work that comes long after: it is a trace of its own, which
// names what asked for it.
func (t *Tracer) Link(ctx context.Context, name, parent string) (context.Context, Span) {
	if t == nil || parent == "" {
		return ctx, Span{}
	}
	return t.begin(ctx, name, trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindConsumer), trace.WithLinks(trace.Link{SpanContext: spanContext(parent)}))
}

func (t *Tracer) begin(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, Span) {
	ctx, span := t.provider.Tracer(scope).Start(ctx, name, options...)
	return ctx, Span{span}
}

// Parent names what ctx is about for whoever goes on with it elsewhere, as the W3C's
// traceparent does; empty when it is not traced.
func Parent(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ""
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier["traceparent"]
}

func spanContext(parent string) trace.SpanContext {
	none := context.Background() //nolint:forbidigo // only what is written into it is read
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(none, propagation.MapCarrier{"traceparent": parent}))
}

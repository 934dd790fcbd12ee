package tracing

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// tracerName is the instrumentation scope of the spans.
const tracerName = "agentmarket.space/server"

// Span is a traced operation. The zero value records nothing.
type Span struct{ span trace.Span }

// Start starts a child of the span in ctx and returns a context with it. It returns
// ctx and a zero Span if ctx has no sampled span. The parent may have ended.
func Start(ctx context.Context, name string) (context.Context, Span) {
	return start(ctx, name, trace.SpanKindInternal)
}

// StartClient is like Start for a request to another program.
func StartClient(ctx context.Context, name string) (context.Context, Span) {
	return start(ctx, name, trace.SpanKindClient)
}

func start(ctx context.Context, name string, kind trace.SpanKind) (context.Context, Span) {
	parent := trace.SpanFromContext(ctx)
	if !parent.SpanContext().IsSampled() {
		return ctx, Span{}
	}
	ctx, span := parent.TracerProvider().Tracer(tracerName).Start(ctx, name, trace.WithSpanKind(kind))
	return ctx, Span{span}
}

// FromContext returns the recording span of ctx, or a zero Span.
func FromContext(ctx context.Context) Span {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		return Span{span}
	}
	return Span{}
}

// WithoutSpan returns a context without a span. Spans started from it begin a new
// trace.
func WithoutSpan(ctx context.Context) context.Context {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return ctx
	}
	return trace.ContextWithSpan(ctx, nil)
}

// IsRecording reports whether attributes of the span are recorded.
func (s Span) IsRecording() bool { return s.span != nil }

// Rename sets the name of the span.
func (s Span) Rename(name string) {
	if s.span != nil {
		s.span.SetName(name)
	}
}

// SetString sets a string attribute.
func (s Span) SetString(name, text string) {
	if s.span != nil {
		s.span.SetAttributes(attribute.String(name, text))
	}
}

// SetInt sets an integer attribute.
func (s Span) SetInt(name string, n int) {
	if s.span != nil {
		s.span.SetAttributes(attribute.Int(name, n))
	}
}

// SetError sets the status of the span to an error with a code.
func (s Span) SetError(code string) {
	if s.span != nil {
		s.span.SetStatus(codes.Error, code)
	}
}

// End ends the span.
func (s Span) End() {
	if s.span != nil {
		s.span.End()
	}
}

// StartRequest starts a server span for a request. It continues the trace of the
// traceparent header; tracestate is ignored. The name is the method and route, because
// a path is client input; see Rename. A nil tracer records nothing.
func (t *Tracer) StartRequest(r *http.Request, method, route string) (context.Context, Span) {
	if t == nil {
		return r.Context(), Span{}
	}
	ctx := trace.ContextWithRemoteSpanContext(r.Context(), parseTraceparent(r.Header.Get("traceparent")))
	return t.start(ctx, method+" "+route, trace.WithSpanKind(trace.SpanKindServer))
}

// Start starts a child of the span in ctx, or a new trace.
func (t *Tracer) Start(ctx context.Context, name string) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	return t.start(ctx, name, trace.WithSpanKind(trace.SpanKindServer))
}

// StartChild starts a consumer span as a child of a span in another process or an
// earlier job, named by parent; see [Traceparent]. It records nothing if parent is
// empty.
func (t *Tracer) StartChild(ctx context.Context, name, parent string) (context.Context, Span) {
	if t == nil || parent == "" {
		return ctx, Span{}
	}
	return t.start(trace.ContextWithRemoteSpanContext(ctx, parseTraceparent(parent)), name, trace.WithSpanKind(trace.SpanKindConsumer))
}

// StartLinked is like StartChild, but starts a new trace that links to parent. Use it
// for work that can happen long after parent has ended.
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

// Traceparent returns the W3C traceparent of the span in ctx, or "" if it is not
// sampled.
func Traceparent(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ""
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier["traceparent"]
}

func parseTraceparent(parent string) trace.SpanContext {
	ctx := context.Background() //nolint:forbidigo // only carries the extracted span context
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": parent}))
}

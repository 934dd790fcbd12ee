package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// flushTimeout is how long the last spans may take to be sent.
const flushTimeout = 5 * time.Second

// Tracer begins traces and sends their spans to a collector. A nil one begins none. It
// is safe for concurrent use.
type Tracer struct{ provider *sdktrace.TracerProvider }

// Options say where spans go and who sends them.
type Options struct {
	Endpoint string // of a collector that speaks OTLP over HTTP; /v1/traces is added
	Version  string // of the program
	Instance string // of the program, among its replicas
	Logger   *slog.Logger
}

// Open returns a tracer. A collector that is not there is no error: what cannot be sent
// is dropped and logged. Headers, certificates, sampling and the name of the service are
// as the variables of the OpenTelemetry specification say, OTEL_EXPORTER_OTLP_HEADERS,
// OTEL_TRACES_SAMPLER and so on.
func Open(ctx context.Context, o Options) (*Tracer, error) {
	address, err := url.JoinPath(o.Endpoint, "v1/traces")
	if err != nil {
		return nil, fmt.Errorf("open traces: %w", err)
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(address))
	if err != nil {
		return nil, fmt.Errorf("open traces: %w", err)
	}
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(
		attribute.String("service.name", "agentmarket"), attribute.String("service.version", o.Version), attribute.String("service.instance.id", o.Instance),
	), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("open traces: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { // the library has one for the whole process
		o.Logger.Warn("traces", slog.Any("error", err))
	}))
	return &Tracer{sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))}, nil
}

// Close sends what is left, for a few seconds at most. A nil tracer has nothing.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("send the last spans: %w", err)
	}
	return nil
}

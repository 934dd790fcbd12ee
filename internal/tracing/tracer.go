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

// flushTimeout bounds the export of the remaining spans in Close.
const flushTimeout = 5 * time.Second

// Tracer exports spans to a collector. A nil Tracer records nothing. It is safe for
// concurrent use.
type Tracer struct{ provider *sdktrace.TracerProvider }

// Options configure a Tracer.
type Options struct {
	Endpoint string // base URL of an OTLP/HTTP collector, without /v1/traces
	Version  string // program version
	Instance string // id of this replica
	Logger   *slog.Logger
}

// Open returns a tracer. It does not connect to the collector: spans that cannot be
// exported are dropped and logged. Headers, certificates, sampling and the service
// name are read from the environment variables of the OpenTelemetry specification,
// such as OTEL_EXPORTER_OTLP_HEADERS and OTEL_TRACES_SAMPLER.
func Open(ctx context.Context, o Options) (*Tracer, error) {
	address, err := url.JoinPath(o.Endpoint, "v1/traces")
	if err != nil {
		return nil, fmt.Errorf("open OTLP trace exporter: %w", err)
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(address))
	if err != nil {
		return nil, fmt.Errorf("open OTLP trace exporter: %w", err)
	}
	res, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(
		attribute.String("service.name", "agentmarket"), attribute.String("service.version", o.Version), attribute.String("service.instance.id", o.Instance),
	), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("open OTLP trace exporter: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { // the error handler is global
		o.Logger.Warn("trace export failed", slog.Any("error", err))
	}))
	return &Tracer{sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(res))}, nil
}

// Close exports the remaining spans, for at most flushTimeout. It does nothing for a
// nil tracer.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("export remaining spans: %w", err)
	}
	return nil
}

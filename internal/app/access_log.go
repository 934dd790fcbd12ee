package app

import (
	"log/slog"
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/google/uuid"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/tracing"
	"agentmarket.space/server/models"
)

const maxRequestIDLength = 64

// instrument assigns an id to every request, records metrics, a trace span and a log
// line, and recovers from panics.
func instrument(m *metrics, tracer *tracing.Tracer, logger *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		request := &auth.Request{ID: requestID(r)}
		w.Header().Set("X-Request-Id", request.ID)
		recorded := &statusRecorder{ResponseWriter: w}
		ctx, span := tracer.StartRequest(r, methodLabel(r.Method), apiOf(r))
		r = r.WithContext(auth.WithRequest(ctx, request))
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler { //nolint:errorlint // a panic value, compared as net/http does
					panic(p)
				}
				handlePanic(logger, recorded, r, p)
			}
			duration := time.Since(start)
			m.observeRequest(r, recorded.statusCode(), duration)
			endSpan(span, r, request.ID, recorded.statusCode())
			level := slog.LevelDebug
			if recorded.statusCode() >= http.StatusInternalServerError {
				level = slog.LevelWarn
			}
			if !logger.Enabled(r.Context(), level) { // before building the attributes
				return
			}
			logger.Log(r.Context(), level, "request", slog.String("request_id", request.ID), slog.String("method", r.Method),
				slog.String("path", r.URL.Path), slog.Int("status", recorded.statusCode()), slog.Duration("duration", duration))
		}()
		next.ServeHTTP(recorded, r)
	})
}

// endSpan ends the span of a request with its status.
func endSpan(span tracing.Span, r *http.Request, id string, status int) {
	if !span.IsRecording() {
		return
	}
	span.SetString("http.request.method", methodLabel(r.Method))
	span.SetString("agentmarket.request_id", id)
	span.SetInt("http.response.status_code", status)
	if status >= http.StatusInternalServerError {
		span.SetError(strconv.Itoa(status))
	}
	span.End()
}

// handlePanic logs a panic with its stack. It responds with INTERNAL if the handler
// has not written a response.
func handlePanic(logger *slog.Logger, w *statusRecorder, r *http.Request, panicked any) {
	stack := make([]byte, 8<<10)
	logger.ErrorContext(r.Context(), "handler panicked", slog.Any("panic", panicked),
		slog.String("request_id", auth.RequestFrom(r.Context()).ID), slog.String("stack", string(stack[:runtime.Stack(stack, false)])))
	if w.status == 0 {
		writeError(w, r, models.Errorf(models.Internal, "internal error"), nil)
	}
}

// requestID returns the X-Request-Id of the client, or a new id if it is missing, sent
// twice, too long, or has characters other than printable ASCII.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	if id == "" || len(r.Header["X-Request-Id"]) > 1 || len(id) > maxRequestIDLength {
		return uuid.NewString()
	}
	for _, c := range id {
		if c <= ' ' || c > '~' {
			return uuid.NewString()
		}
	}
	return id
}

// statusRecorder records the status of a response.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (r *statusRecorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *statusRecorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap gives http.ResponseController access to the connection.
func (r *statusRecorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *statusRecorder) statusCode() int {
	if r.status == 0 {
		return http.StatusOK
	}
	return r.status
}

package app

import (
	"log/slog"
	"net/http"
	"runtime"
	"strconv"
	"time"

	"github.com/google/uuid"

	"agentmarket.space/server/compat"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/tracing"
	"agentmarket.space/server/models"
)

const maxRequestIDLength = 64

// instrument gives every request an id, counts, traces and logs it, and contains its
// panics.
func instrument(m *metrics, tracer *tracing.Tracer, logger *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := time.Now()
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
			took := time.Since(begun)
			m.observeRequest(r, recorded.statusCode(), took)
			endSpan(span, r, request.ID, recorded.statusCode())
			level := slog.LevelDebug
			if recorded.statusCode() >= http.StatusInternalServerError {
				level = slog.LevelWarn
			}
			if !logger.Enabled(r.Context(), level) { // before its line is put together
				return
			}
			logger.Log(r.Context(), level, "request", slog.String("request_id", request.ID), slog.String("method", r.Method),
				slog.String("path", r.URL.Path), slog.Int("status", recorded.statusCode()), slog.Duration("took", took))
		}()
		next.ServeHTTP(recorded, r)
	})
}

// endSpan ends the span of a request with how it was answered.
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

// handlePanic logs a panic with its stack and answers for the handler when it has
// not begun to.
func handlePanic(logger *slog.Logger, w *statusRecorder, r *http.Request, panicked any) {
	stack := make([]byte, 8<<10)
	logger.ErrorContext(r.Context(), "panic in a handler", slog.Any("panic", panicked),
		slog.String("request_id", auth.RequestFrom(r.Context()).ID), slog.String("stack", string(stack[:runtime.Stack(stack, false)])))
	if w.status == 0 {
		compat.WriteError(w, r, models.Errorf(models.Internal, "internal error"), nil)
	}
}

// requestID is the client's id for the request when it is fit for a log, or a
// fresh one.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	if id == "" || len(id) > maxRequestIDLength {
		return uuid.NewString()
	}
	for _, c := range id {
		if c <= ' ' || c > '~' {
			return uuid.NewString()
		}
	}
	return id
}

// statusRecorder remembers the status of an answer.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader notes the status.
func (r *statusRecorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write notes that the answer has begun.
func (r *statusRecorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *statusRecorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *statusRecorder) statusCode() int {
	if r.status == 0 {
		return http.StatusOK
	}
	return r.status
}

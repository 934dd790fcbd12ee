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

const maxRequestID = 64

// observe gives every request an id, counts, traces and logs it, and contains its
// panics.
func observe(m *metrics, tracer *tracing.Tracer, logger *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := time.Now()
		request := &auth.Request{ID: requestID(r)}
		w.Header().Set("X-Request-Id", request.ID)
		recorded := &recorder{ResponseWriter: w}
		ctx, span := tracer.Request(r, method(r.Method), doorOf(r))
		r = r.WithContext(auth.WithRequest(ctx, request))
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler { //nolint:errorlint // a panic value, compared as net/http does
					panic(p)
				}
				contain(logger, recorded, r, p)
			}
			took := time.Since(begun)
			m.seen(r, recorded.code(), took)
			endSpan(span, r, request.ID, recorded.code())
			level := slog.LevelDebug
			if recorded.code() >= http.StatusInternalServerError {
				level = slog.LevelWarn
			}
			if !logger.Enabled(r.Context(), level) { // before its line is put together
				return
			}
			logger.Log(r.Context(), level, "request", slog.String("request_id", request.ID), slog.String("method", r.Method),
				slog.String("path", r.URL.Path), slog.Int("status", recorded.code()), slog.Duration("took", took))
		}()
		next.ServeHTTP(recorded, r)
	})
}

// endSpan ends the span of a request with how it was answered.
func endSpan(span tracing.Span, r *http.Request, id string, status int) {
	if !span.Noted() {
		return
	}
	span.Say("http.request.method", method(r.Method))
	span.Say("agentmarket.request_id", id)
	span.Count("http.response.status_code", status)
	if status >= http.StatusInternalServerError {
		span.Fail(strconv.Itoa(status))
	}
	span.End()
}

// contain logs a panic with its stack and answers for the handler when it has
// not begun to.
func contain(logger *slog.Logger, w *recorder, r *http.Request, panicked any) {
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
	if id == "" || len(id) > maxRequestID {
		return uuid.NewString()
	}
	for _, c := range id {
		if c <= ' ' || c > '~' {
			return uuid.NewString()
		}
	}
	return id
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
}

// WriteHeader notes the status.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write notes that the answer has begun.
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func (r *recorder) code() int {
	if r.status == 0 {
		return http.StatusOK
	}
	return r.status
}

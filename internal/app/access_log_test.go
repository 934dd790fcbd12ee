package app

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestRequestID checks that a valid X-Request-Id is kept and an invalid one replaced.
func TestRequestID(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, nil)
	if got := b.do(t, http.MethodGet, "/livez", "", "X-Request-Id", "client-id-1"); got.Header.Get("X-Request-Id") != "client-id-1" {
		t.Errorf("got id %q", got.Header.Get("X-Request-Id"))
	}
	for _, bad := range []string{"", strings.Repeat("a", 65), "a b", "a\tb", "ä"} {
		if got := b.do(t, http.MethodGet, "/livez", "", "X-Request-Id", bad); len(got.Header.Get("X-Request-Id")) != 36 {
			t.Errorf("%q: got id %q", bad, got.Header.Get("X-Request-Id"))
		}
	}
}

// TestInstrument_recoversPanics checks that a panic is logged and results in INTERNAL.
func TestInstrument_recoversPanics(t *testing.T) {
	t.Parallel()
	log := &logBuffer{}
	b := newTestServer(t, nil)
	handler := instrument(b.metrics, nil, slog.New(slog.NewJSONHandler(log, nil)), http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") }))
	recorded := httptest.NewRecorder()
	handler.ServeHTTP(recorded, httptest.NewRequest(http.MethodGet, "/api/tasks", http.NoBody))
	if recorded.Code != http.StatusInternalServerError || !strings.Contains(recorded.Body.String(), `"code":"INTERNAL"`) || strings.Contains(recorded.Body.String(), "boom") {
		t.Errorf("got response %d %s", recorded.Code, recorded.Body)
	}
	if !strings.Contains(log.String(), "boom") || !strings.Contains(log.String(), recorded.Header().Get("X-Request-Id")) {
		t.Errorf("got log %s", log)
	}
}

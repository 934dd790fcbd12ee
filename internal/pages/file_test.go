package pages_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"agentmarket.space/server/internal/pages"
)

// TestNewFile checks the content type, the length and HEAD responses of files.
func TestNewFile(t *testing.T) {
	t.Parallel()
	for name, contentType := range map[string]string{
		"skill.md": "text/markdown; charset=utf-8", "llms.txt": "text/plain; charset=utf-8", "openapi.json": "application/json",
		"schema.graphqls": "application/graphql; charset=utf-8",
	} {
		file := pages.NewFile(name, []byte("text"))
		expectResponse(t, get(file, "/"), http.StatusOK, "Content-Type", contentType, "Content-Length", "4")
		w := httptest.NewRecorder()
		file.ServeHTTP(w, httptest.NewRequest(http.MethodHead, "/", http.NoBody))
		expectResponse(t, w.Result(), http.StatusOK, "Content-Type", contentType, "Content-Length", "4")
		if w.Body.Len() > 0 {
			t.Errorf("HEAD has body %q", w.Body)
		}
	}
}

func get(handler http.Handler, target string, header ...string) *http.Response {
	r := httptest.NewRequest(http.MethodGet, target, http.NoBody)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return w.Result()
}

// expectResponse checks the status and headers, given as pairs of name and value.
func expectResponse(t *testing.T, got *http.Response, status int, header ...string) {
	t.Helper()
	if got.StatusCode != status {
		t.Errorf("want status %d, got %d", status, got.StatusCode)
	}
	for i := 0; i < len(header); i += 2 {
		if value := got.Header.Get(header[i]); value != header[i+1] {
			t.Errorf("want %s: %q, got %q", header[i], header[i+1], value)
		}
	}
}

func readBody(t *testing.T, response *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

package pages_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"

	"agentmarket.space/server/internal/pages"
)

// scriptContent is long enough for it to matter that it is packed.
var scriptContent = strings.Repeat("let market = 'open';\n", 100)

// newTestFolder is a page at /book with a file that was packed before.
func newTestFolder(t *testing.T) http.Handler {
	t.Helper()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err := io.WriteString(w, scriptContent)
	if err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	return pages.FolderHandler("/book", fstest.MapFS{
		"assets/index.html":          {Data: []byte(`<main data-to="{{target}}">{{other}}</main>`)},
		"assets/style.css":           {Data: []byte("main { color: blue }")},
		"assets/icon.svg":            {Data: []byte("<svg/>")},
		"assets/examples.graphql":    {Data: []byte("{ viewer { agent { id } } }")},
		"assets/vendor/script.js.gz": {Data: packed.Bytes()},
	}, map[string]string{"target": `/graphql?x="1"`})
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

func TestFolderHandler(t *testing.T) {
	t.Parallel()
	handler := newTestFolder(t)

	t.Run("the page has what it was given, escaped, and may load nothing foreign", func(t *testing.T) {
		t.Parallel()
		for _, target := range []string{"/book", "/book/"} {
			page := get(handler, target)
			expectResponse(t, page, http.StatusOK, "Content-Type", "text/html; charset=utf-8", "X-Content-Type-Options", "nosniff", "Referrer-Policy", "no-referrer")
			policy := page.Header.Get("Content-Security-Policy")
			for _, part := range []string{"default-src 'self'", "script-src 'self';", "connect-src 'self'", "frame-ancestors 'none'"} {
				if !strings.Contains(policy, part) {
					t.Errorf("policy %q lacks %q", policy, part)
				}
			}
			if text := readBody(t, page); text != `<main data-to="/graphql?x=&#34;1&#34;">{{other}}</main>` {
				t.Errorf("the page is %s", text)
			}
		}
	})

	t.Run("files are packed for whoever accepts gzip, and the same unpacked", func(t *testing.T) {
		t.Parallel()
		for name, contentType := range map[string]string{
			"":                 "text/html; charset=utf-8",
			"script.js":        "text/javascript; charset=utf-8",
			"style.css":        "text/css; charset=utf-8",
			"icon.svg":         "image/svg+xml",
			"examples.graphql": "application/graphql; charset=utf-8",
		} {
			packed := get(handler, "/book/"+name, "Accept-Encoding", "br, gzip;q=0.8")
			expectResponse(t, packed, http.StatusOK, "Content-Type", contentType, "Content-Encoding", "gzip", "Vary", "Accept-Encoding")
			unpacked, err := gzip.NewReader(packed.Body)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(unpacked)
			if err != nil {
				t.Fatal(err)
			}
			plain := get(handler, "/book/"+name, "Accept-Encoding", "gzip;q=0, br")
			expectResponse(t, plain, http.StatusOK, "Content-Type", contentType, "Content-Encoding", "")
			if readBody(t, plain) != string(text) || len(text) == 0 {
				t.Errorf("%q: packed and plain differ, or are empty", name)
			}
			if packed.Header.Get("ETag") == plain.Header.Get("ETag") {
				t.Errorf("%q: two encodings share the ETag %s", name, plain.Header.Get("ETag"))
			}
		}
		if got := readBody(t, get(handler, "/book/script.js")); got != scriptContent {
			t.Errorf("what was packed before comes as %.40q", got)
		}
	})

	t.Run("who has the file is told so", func(t *testing.T) {
		t.Parallel()
		first := get(handler, "/book/script.js", "Accept-Encoding", "gzip")
		again := get(handler, "/book/script.js", "Accept-Encoding", "gzip", "If-None-Match", first.Header.Get("ETag"))
		expectResponse(t, again, http.StatusNotModified, "ETag", first.Header.Get("ETag"), "Cache-Control", "no-cache")
		if text := readBody(t, again); text != "" {
			t.Errorf("a 304 came with %d bytes", len(text))
		}
	})

	t.Run("nothing else is served, and nothing is written", func(t *testing.T) {
		t.Parallel()
		for _, name := range []string{"nothing.js", "index.html", "assets/index.html", "../book.go", "script.js.gz"} {
			expectResponse(t, get(handler, "/book/"+name), http.StatusNotFound)
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/book", http.NoBody))
		expectResponse(t, w.Result(), http.StatusMethodNotAllowed, "Allow", "GET, HEAD")
	})
}

// TestNewFile: a document is of the type that its name says, has a length, and HEAD
// is answered as GET is, without it.
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
			t.Errorf("HEAD came with %q", w.Body)
		}
	}
}

// expectResponse checks the status and then headers, given as name and value in turn.
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

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

// scriptContent is long enough to become smaller when compressed.
var scriptContent = strings.Repeat("let market = 'open';\n", 100)

// newTestFolder serves a page at /book, with a file that is already compressed.
func newTestFolder(t *testing.T) http.Handler {
	t.Helper()
	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	_, err := io.WriteString(w, scriptContent)
	if err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	return pages.FolderHandler("/book", fstest.MapFS{
		"assets/index.html":          {Data: []byte(`<a href="{{root}}">Start</a><img src="{{root}}book/icon.svg">`)},
		"assets/style.css":           {Data: []byte("main { color: blue }")},
		"assets/icon.svg":            {Data: []byte("<svg/>")},
		"assets/examples.graphql":    {Data: []byte("{ viewer { agent { id } } }")},
		"assets/vendor/script.js.gz": {Data: compressed.Bytes()},
	})
}

func TestFolderHandler(t *testing.T) {
	t.Parallel()
	handler := newTestFolder(t)

	t.Run("page has relative URLs and a restrictive policy", func(t *testing.T) {
		t.Parallel()
		for target, root := range map[string]string{"/book": "./", "/book/": "../"} {
			page := get(handler, target)
			expectResponse(t, page, http.StatusOK, "Content-Type", "text/html; charset=utf-8", "X-Content-Type-Options", "nosniff", "Referrer-Policy", "no-referrer")
			policy := page.Header.Get("Content-Security-Policy")
			for _, part := range []string{"default-src 'self'", "script-src 'self';", "connect-src 'self'", "frame-ancestors 'none'"} {
				if !strings.Contains(policy, part) {
					t.Errorf("policy %q lacks %q", policy, part)
				}
			}
			if text := readBody(t, page); text != `<a href="`+root+`">Start</a><img src="`+root+`book/icon.svg">` {
				t.Errorf("the page is %s", text)
			}
		}
	})

	t.Run("compressed and uncompressed files have the same content", func(t *testing.T) {
		t.Parallel()
		for name, contentType := range map[string]string{
			"":                 "text/html; charset=utf-8",
			"script.js":        "text/javascript; charset=utf-8",
			"style.css":        "text/css; charset=utf-8",
			"icon.svg":         "image/svg+xml",
			"examples.graphql": "application/graphql; charset=utf-8",
		} {
			compressed := get(handler, "/book/"+name, "Accept-Encoding", "br, gzip;q=0.8")
			expectResponse(t, compressed, http.StatusOK, "Content-Type", contentType, "Content-Encoding", "gzip", "Vary", "Accept-Encoding")
			reader, err := gzip.NewReader(compressed.Body)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(reader)
			if err != nil {
				t.Fatal(err)
			}
			plain := get(handler, "/book/"+name, "Accept-Encoding", "gzip;q=0, br")
			expectResponse(t, plain, http.StatusOK, "Content-Type", contentType, "Content-Encoding", "")
			if readBody(t, plain) != string(text) || len(text) == 0 {
				t.Errorf("%q: compressed and plain content differ, or are empty", name)
			}
			if compressed.Header.Get("ETag") == plain.Header.Get("ETag") {
				t.Errorf("%q: both encodings have the ETag %s", name, plain.Header.Get("ETag"))
			}
		}
		if got := readBody(t, get(handler, "/book/script.js")); got != scriptContent {
			t.Errorf("got %.40q for a file that was already compressed", got)
		}
	})

	t.Run("current ETag gets 304", func(t *testing.T) {
		t.Parallel()
		first := get(handler, "/book/script.js", "Accept-Encoding", "gzip")
		second := get(handler, "/book/script.js", "Accept-Encoding", "gzip", "If-None-Match", first.Header.Get("ETag"))
		expectResponse(t, second, http.StatusNotModified, "ETag", first.Header.Get("ETag"), "Cache-Control", "no-cache")
		if text := readBody(t, second); text != "" {
			t.Errorf("304 with %d bytes", len(text))
		}
	})

	t.Run("unknown names and other methods are rejected", func(t *testing.T) {
		t.Parallel()
		for _, name := range []string{"nothing.js", "index.html", "assets/index.html", "../book.go", "script.js.gz", "script.js/", "/"} {
			expectResponse(t, get(handler, "/book/"+name), http.StatusNotFound)
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/book", http.NoBody))
		expectResponse(t, w.Result(), http.StatusMethodNotAllowed, "Allow", "GET, HEAD")
	})
}

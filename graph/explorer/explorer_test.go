package explorer_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"

	"agentmarket.space/server/graph/explorer"
)

func TestHandler(t *testing.T) {
	t.Parallel()
	handler := explorer.Handler(`/graphql?x="1"`)
	get := func(target string, header ...string) *http.Response {
		r := httptest.NewRequest(http.MethodGet, target, http.NoBody)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w.Result()
	}

	t.Run("the page names the endpoint it was given and may load nothing foreign", func(t *testing.T) {
		t.Parallel()
		for _, target := range []string{"/explorer", "/explorer/"} {
			page := get(target)
			want(t, page, http.StatusOK, "Content-Type", "text/html; charset=utf-8", "X-Content-Type-Options", "nosniff")
			policy := page.Header.Get("Content-Security-Policy")
			for _, part := range []string{"default-src 'self'", "script-src 'self';", "connect-src 'self'", "frame-ancestors 'none'"} {
				if !strings.Contains(policy, part) {
					t.Errorf("policy %q lacks %q", policy, part)
				}
			}
			if text := body(t, page); !strings.Contains(text, `data-graphql="/graphql?x=&#34;1&#34;"`) || strings.Contains(text, "http") {
				t.Errorf("want the escaped endpoint and no absolute address in %s", text)
			}
		}
	})

	t.Run("files are packed for whoever accepts gzip, and the same unpacked", func(t *testing.T) {
		t.Parallel()
		for name, contentType := range map[string]string{
			"":                 "text/html; charset=utf-8",
			"graphiql.js":      "text/javascript; charset=utf-8",
			"graphiql.css":     "text/css; charset=utf-8",
			"explorer.js":      "text/javascript; charset=utf-8",
			"icon.svg":         "image/svg+xml",
			"examples.graphql": "application/graphql; charset=utf-8",
		} {
			packed := get("/explorer/"+name, "Accept-Encoding", "br, gzip;q=0.8")
			want(t, packed, http.StatusOK, "Content-Type", contentType, "Content-Encoding", "gzip", "Vary", "Accept-Encoding")
			unpacked, err := gzip.NewReader(packed.Body)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(unpacked)
			if err != nil {
				t.Fatal(err)
			}
			plain := get("/explorer/"+name, "Accept-Encoding", "gzip;q=0, br")
			want(t, plain, http.StatusOK, "Content-Type", contentType, "Content-Encoding", "")
			if body(t, plain) != string(text) || len(text) == 0 {
				t.Errorf("%q: packed and plain differ, or are empty", name)
			}
			if packed.Header.Get("ETag") == plain.Header.Get("ETag") {
				t.Errorf("%q: two encodings share the ETag %s", name, plain.Header.Get("ETag"))
			}
		}
	})

	t.Run("a browser that has the file is told so", func(t *testing.T) {
		t.Parallel()
		first := get("/explorer/graphiql.js", "Accept-Encoding", "gzip")
		again := get("/explorer/graphiql.js", "Accept-Encoding", "gzip", "If-None-Match", first.Header.Get("ETag"))
		want(t, again, http.StatusNotModified, "ETag", first.Header.Get("ETag"), "Cache-Control", "no-cache")
		if text := body(t, again); text != "" {
			t.Errorf("a 304 came with %d bytes", len(text))
		}
	})

	t.Run("nothing else is served, and nothing is written", func(t *testing.T) {
		t.Parallel()
		for _, name := range []string{"nothing.js", "README.md", "assets/index.html", "../explorer.go", "graphiql.js.gz"} {
			want(t, get("/explorer/"+name), http.StatusNotFound)
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/explorer", http.NoBody))
		want(t, w.Result(), http.StatusMethodNotAllowed, "Allow", "GET, HEAD")
	})
}

// TestExamplesFitTheSchema: what the page shows first must run as it stands.
func TestExamplesFitTheSchema(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../schema.graphqls")
	if err != nil {
		t.Fatal(err)
	}
	schema, err := gqlparser.LoadSchema(&ast.Source{Name: "schema.graphqls", Input: string(text)})
	if err != nil {
		t.Fatal(err)
	}
	examples, err := os.ReadFile("assets/examples.graphql")
	if err != nil {
		t.Fatal(err)
	}
	document, faults := gqlparser.LoadQueryWithRules(schema, string(examples), nil)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	if len(document.Operations) == 0 {
		t.Error("there are no examples")
	}
}

// TestVendoredFiles holds each library to the checksum that assets/README.md
// gives, so that none is changed, added or dropped unseen.
func TestVendoredFiles(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("assets/README.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` .* `([0-9a-f]{64})` \\|$").FindAllStringSubmatch(string(readme), -1) {
		listed[row[1]] = row[2]
	}
	names, err := filepath.Glob("assets/vendor/*")
	if err != nil {
		t.Fatal(err)
	}
	if len(names) != len(listed) {
		t.Errorf("assets/vendor holds %v, assets/README.md lists %v", names, listed)
	}
	for _, name := range names {
		packed, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		unpacked, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, unpacked); err != nil {
			t.Fatal(err)
		}
		library := strings.TrimSuffix(filepath.Base(name), ".gz")
		if got := hex.EncodeToString(sum.Sum(nil)); got != listed[library] {
			t.Errorf("%s has sha256 %s, assets/README.md says %q", library, got, listed[library])
		}
	}
}

// want checks the status and then headers, given as name and value in turn.
func want(t *testing.T, got *http.Response, status int, header ...string) {
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

func body(t *testing.T, response *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

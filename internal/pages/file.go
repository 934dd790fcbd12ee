package pages

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"mime"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"
)

// File is a static file. It is compressed on the first request. Only the compressed
// bytes are kept, because almost all clients accept gzip.
type File struct {
	contentType string
	content     func() gzipped
}

// gzipped is a compressed file and its ETag without quotes.
type gzipped struct {
	bytes []byte
	etag  string
}

// NewFile returns a file with the content type of its name's extension. If the name
// ends in .gz, content is already compressed and the type is that of the name without
// .gz.
func NewFile(name string, content []byte) *File {
	name, isCompressed := strings.CutSuffix(name, ".gz")
	return &File{contentType(name), sync.OnceValue(func() gzipped {
		if !isCompressed {
			content = compress(content)
		}
		sum := sha256.Sum256(content)
		return gzipped{content, hex.EncodeToString(sum[:12])}
	})}
}

// ServeHTTP serves GET and HEAD requests. It responds with 304 if the client's copy is
// current.
func (f *File) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "method not allowed; use GET or HEAD", http.StatusMethodNotAllowed)
		return
	}
	header.Set("Content-Type", f.contentType)
	header.Set("Cache-Control", "no-cache") // cached, but revalidated by ETag
	header.Add("Vary", "Accept-Encoding")
	file := f.content()
	body, tag := file.bytes, file.etag+"-gzip"
	if acceptsGzip(r.Header) {
		header.Set("Content-Encoding", "gzip")
	} else {
		var err error
		if body, err = decompress(file.bytes); err != nil {
			http.Error(w, "could not decompress the file", http.StatusInternalServerError)
			return
		}
		tag = file.etag
	}
	header.Set("ETag", `"`+tag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// contentType returns the media type of a file name. It does not use the system's
// tables, which differ between machines.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".graphql", ".graphqls":
		return "application/graphql; charset=utf-8"
	case ".md":
		return "text/markdown; charset=utf-8"
	case ".json":
		return "application/json"
	case ".html":
		return "text/html; charset=utf-8"
	default:
		return "text/plain; charset=utf-8"
	}
}

func compress(content []byte) []byte {
	var compressed bytes.Buffer
	w := gzip.NewWriter(&compressed)
	_, _ = w.Write(content) // writes to a buffer do not fail
	_ = w.Close()
	return compressed.Bytes()
}

func decompress(compressed []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// acceptsGzip reports whether Accept-Encoding lists gzip with a non-zero weight.
func acceptsGzip(header http.Header) bool {
	for _, line := range header.Values("Accept-Encoding") {
		for coding := range strings.SplitSeq(line, ",") {
			name, params, err := mime.ParseMediaType(coding)
			if err != nil || name != "gzip" {
				continue
			}
			if weight, ok := params["q"]; !ok || strings.Trim(weight, "0.") != "" {
				return true
			}
		}
	}
	return false
}

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

// File is one thing to read, at one address. It is packed when it is first asked
// for, and then only its packed bytes are kept: hardly a client asks for the others.
type File struct {
	contentType string
	content     func() gzipped
}

// gzipped are a file's bytes, as gzip has them, and their tag without quotes.
type gzipped struct {
	bytes []byte
	etag  string
}

// NewFile makes a file. Its name says what it is, as in style.css; one that ends in
// .gz has been packed already, and is served under its name without that.
func NewFile(name string, content []byte) *File {
	name, isPacked := strings.CutSuffix(name, ".gz")
	return &File{contentType(name), sync.OnceValue(func() gzipped {
		if !isPacked {
			content = compress(content)
		}
		sum := sha256.Sum256(content)
		return gzipped{content, hex.EncodeToString(sum[:12])}
	})}
}

// ServeHTTP answers GET and HEAD with the file, or with 304 who has it already.
func (f *File) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "this is only read", http.StatusMethodNotAllowed)
		return
	}
	header.Set("Content-Type", f.contentType)
	header.Set("Cache-Control", "no-cache") // kept, but asked for again by its ETag
	header.Add("Vary", "Accept-Encoding")
	file := f.content()
	body, tag := file.bytes, file.etag+"-gzip"
	if acceptsGzip(r.Header) {
		header.Set("Content-Encoding", "gzip")
	} else {
		var err error
		if body, err = decompress(file.bytes); err != nil {
			http.Error(w, "this file is broken", http.StatusInternalServerError)
			return
		}
		tag = file.etag
	}
	header.Set("ETag", `"`+tag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// contentType does not ask the system's tables, which differ between machines.
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
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write(content) // a buffer takes everything
	_ = w.Close()
	return packed.Bytes()
}

func decompress(packed []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// acceptsGzip reads Accept-Encoding: gzip counts unless its weight is zero.
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

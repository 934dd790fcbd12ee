package explorer

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"
)

// Path is where the page is served, and the folder of its files. A mux needs
// two patterns for one Handler: Path and Path + "/".
const Path = "/explorer"

// policy lets the page load and call its own host only. Styles may be inline
// because GraphiQL's dialogs and menus insert style elements; scripts may not.
const policy = "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
	"connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

//go:embed assets/index.html assets/*.js assets/*.css assets/*.svg assets/*.graphql assets/vendor/*.gz
var assets embed.FS

// Handler serves the explorer under Path, with a GraphQL endpoint at graphqlPath
// on the same host, which answers HTTP and graphql-transport-ws alike. Files go
// out compressed to whoever accepts gzip, with an ETag to revalidate by.
//
// It panics if the embedded files cannot be read: then the program was built wrong.
func Handler(graphqlPath string) http.Handler {
	files, err := load(graphqlPath)
	if err != nil {
		panic(fmt.Errorf("read the embedded explorer: %w", err))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", policy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		name := strings.Trim(strings.TrimPrefix(r.URL.Path, Path), "/")
		found, ok := files[name]
		switch {
		case !ok:
			http.NotFound(w, r)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			header.Set("Allow", "GET, HEAD")
			http.Error(w, "the explorer is only read", http.StatusMethodNotAllowed)
		default:
			found.serve(w, r)
		}
	})
}

// file is one response body. Only the packed bytes are kept: the libraries are
// 1.3 MB unpacked, and hardly a browser asks for them that way.
type file struct {
	contentType string
	packed      []byte
	tag         string // of the packed bytes, without quotes
}

// load reads the embedded files by the name they are asked for under Path. The
// page itself is named "".
func load(graphqlPath string) (map[string]file, error) {
	files := map[string]file{}
	err := fs.WalkDir(assets, "assets", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := assets.ReadFile(name)
		if err != nil {
			return err
		}
		served := path.Base(name)
		if served == "index.html" {
			served = ""
			content = bytes.ReplaceAll(content, []byte("{{graphql}}"), []byte(html.EscapeString(graphqlPath)))
		}
		packed := content
		if path.Ext(served) == ".gz" {
			served = strings.TrimSuffix(served, ".gz")
		} else if packed, err = pack(content); err != nil {
			return err
		}
		sum := sha256.Sum256(packed)
		files[served] = file{contentType: contentType(served), packed: packed, tag: hex.EncodeToString(sum[:12])}
		return nil
	})
	return files, err
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
	case ".graphql":
		return "application/graphql; charset=utf-8"
	default:
		return "text/html; charset=utf-8"
	}
}

func pack(content []byte) ([]byte, error) {
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return packed.Bytes(), nil
}

func (f file) serve(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Type", f.contentType)
	header.Set("Cache-Control", "no-cache") // kept, but asked for again by its ETag
	header.Set("Vary", "Accept-Encoding")
	body, tag := f.packed, f.tag+"-gzip"
	if acceptsGzip(r.Header) {
		header.Set("Content-Encoding", "gzip")
	} else {
		var err error
		if body, err = unpack(f.packed); err != nil {
			http.Error(w, "this file of the explorer is broken", http.StatusInternalServerError)
			return
		}
		tag = f.tag
	}
	header.Set("ETag", `"`+tag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

func unpack(packed []byte) ([]byte, error) {
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

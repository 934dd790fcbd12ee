package pages

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

// contentSecurityPolicy allows resources and requests of the page's own host only.
// Inline styles are allowed because the libraries insert style elements. Inline
// scripts are not.
const contentSecurityPolicy = "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
	"connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// rootPlaceholder is where a page has the relative URL of the server's root. Absolute
// URLs would break below a path of a host, which only the reverse proxy knows.
const rootPlaceholder = "{{root}}"

// FolderHandler serves the files of assets by their base names below prefix, such as
// "/docs", and index.html at prefix itself. It replaces each {{root}} in index.html with
// the relative URL of the server's root, "./" or "../". Register the handler for both
// prefix and prefix + "/".
//
// It panics if a file cannot be read, which means that the binary is broken.
func FolderHandler(prefix string, assets fs.FS) http.Handler {
	files, err := loadFiles(assets)
	if err != nil {
		panic(fmt.Errorf("read embedded files of %s: %w", prefix, err))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", contentSecurityPolicy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		file, ok := files[strings.TrimPrefix(r.URL.Path, prefix)]
		if !ok {
			http.NotFound(w, r)
			return
		}
		file.ServeHTTP(w, r)
	})
}

// loadFiles returns the files by their paths below the prefix. The page has two, "" and
// "/", and the relative URLs in it differ.
func loadFiles(assets fs.FS) (map[string]*File, error) {
	files := map[string]*File{}
	err := fs.WalkDir(assets, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(assets, name)
		if err != nil {
			return err
		}
		base := path.Base(name)
		if base == "index.html" {
			files[""] = NewFile(base, bytes.ReplaceAll(content, []byte(rootPlaceholder), []byte("./")))
			files["/"] = NewFile(base, bytes.ReplaceAll(content, []byte(rootPlaceholder), []byte("../")))
			return nil
		}
		files["/"+strings.TrimSuffix(base, ".gz")] = NewFile(base, content)
		return nil
	})
	return files, err
}

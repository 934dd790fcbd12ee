package pages

import (
	"fmt"
	"html"
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

// FolderHandler serves the files of assets by their base names below prefix, and
// index.html at prefix itself. It replaces each {{name}} in index.html with the value
// of name, escaped for HTML. Register the handler for both prefix and prefix + "/".
//
// It panics if a file cannot be read, which means that the binary is broken.
func FolderHandler(prefix string, assets fs.FS, values map[string]string) http.Handler {
	files, err := loadFiles(assets, values)
	if err != nil {
		panic(fmt.Errorf("read embedded files of %s: %w", prefix, err))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", contentSecurityPolicy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		file, ok := files[strings.Trim(strings.TrimPrefix(r.URL.Path, prefix), "/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		file.ServeHTTP(w, r)
	})
}

// loadFiles returns the files by base name. The name of index.html is "".
func loadFiles(assets fs.FS, values map[string]string) (map[string]*File, error) {
	files := map[string]*File{}
	err := fs.WalkDir(assets, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(assets, name)
		if err != nil {
			return err
		}
		base := strings.TrimSuffix(path.Base(name), ".gz")
		if base == "index.html" {
			base, content = "", []byte(fillPlaceholders(string(content), values))
		}
		files[base] = NewFile(path.Base(name), content)
		return nil
	})
	return files, err
}

// fillPlaceholders replaces each {{name}} with its value, escaped for HTML.
func fillPlaceholders(page string, values map[string]string) string {
	for name, value := range values {
		page = strings.ReplaceAll(page, "{{"+name+"}}", html.EscapeString(value))
	}
	return page
}

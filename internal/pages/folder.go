package pages

import (
	"fmt"
	"html"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

// contentSecurityPolicy lets a page load and call its own host only. Styles may be inline because
// the libraries insert style elements; scripts may not.
const contentSecurityPolicy = "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
	"connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// FolderHandler serves the files of assets by their last names under a path, and its
// index.html at the path itself. In that one a word in two pairs of braces stands
// for what fill has under it. A mux needs two patterns: at and at + "/".
//
// It panics when a file cannot be read: then the program was built wrong.
func FolderHandler(at string, assets fs.FS, fill map[string]string) http.Handler {
	files, err := loadFiles(assets, fill)
	if err != nil {
		panic(fmt.Errorf("read the embedded files of %s: %w", at, err))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", contentSecurityPolicy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		file, ok := files[strings.Trim(strings.TrimPrefix(r.URL.Path, at), "/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		file.ServeHTTP(w, r)
	})
}

// loadFiles reads files by the name they are asked for. The page itself is named "".
func loadFiles(assets fs.FS, fill map[string]string) (map[string]*File, error) {
	files := map[string]*File{}
	err := fs.WalkDir(assets, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(assets, name)
		if err != nil {
			return err
		}
		served := strings.TrimSuffix(path.Base(name), ".gz")
		if served == "index.html" {
			served, content = "", []byte(fillPlaceholders(string(content), fill))
		}
		files[served] = NewFile(path.Base(name), content)
		return nil
	})
	return files, err
}

// fillPlaceholders puts values, escaped for HTML, where a page has their names.
func fillPlaceholders(page string, fill map[string]string) string {
	for name, value := range fill {
		page = strings.ReplaceAll(page, "{{"+name+"}}", html.EscapeString(value))
	}
	return page
}

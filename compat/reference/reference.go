package reference

import (
	"embed"
	"net/http"

	"agentmarket.space/server/internal/pages"
)

// Path is where the page is served, and the folder of its files. A mux needs
// two patterns for one Handler: Path and Path + "/".
const Path = "/docs"

//go:embed assets/index.html assets/*.js assets/*.css assets/*.svg assets/vendor/*.gz
var assets embed.FS

// Handler serves the page under Path, about the OpenAPI document at documentPath
// on the same host. Files go out compressed to whoever accepts gzip, with an ETag
// to revalidate by.
func Handler(documentPath string) http.Handler {
	return pages.FolderHandler(Path, assets, map[string]string{"openapi": documentPath})
}

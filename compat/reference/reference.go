package reference

import (
	"embed"
	"net/http"

	"agentmarket.space/server/internal/pages"
)

// Path is the URL path of the page and of the directory of its files. Register Handler
// for both Path and Path + "/".
const Path = "/docs"

//go:embed assets/index.html assets/*.js assets/*.css assets/*.svg assets/vendor/*.gz
var assets embed.FS

// Handler serves the page under Path for the OpenAPI document at /openapi.json on the
// same host. Files have an ETag and are compressed for clients that accept gzip.
func Handler() http.Handler { return pages.FolderHandler(Path, assets) }

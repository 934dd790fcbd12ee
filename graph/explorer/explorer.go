package explorer

import (
	"embed"
	"net/http"

	"agentmarket.space/server/internal/pages"
)

// Path is the URL path of the page and of the directory of its files. Register Handler
// for both Path and Path + "/".
const Path = "/explorer"

//go:embed assets/index.html assets/*.js assets/*.css assets/*.svg assets/*.graphql assets/vendor/*.gz
var assets embed.FS

// Handler serves the explorer under Path for the GraphQL endpoint at /graphql on the
// same host, which must support HTTP and graphql-transport-ws. Files have an ETag and
// are compressed for clients that accept gzip.
func Handler() http.Handler { return pages.FolderHandler(Path, assets) }

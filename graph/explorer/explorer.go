package explorer

import (
	"embed"
	"net/http"

	"agentmarket.space/server/internal/pages"
)

// Path is where the page is served, and the folder of its files. A mux needs
// two patterns for one Handler: Path and Path + "/".
const Path = "/explorer"

//go:embed assets/index.html assets/*.js assets/*.css assets/*.svg assets/*.graphql assets/vendor/*.gz
var assets embed.FS

// Handler serves the explorer under Path, with a GraphQL endpoint at graphqlPath
// on the same host, which answers HTTP and graphql-transport-ws alike. Files go
// out compressed to whoever accepts gzip, with an ETag to revalidate by.
func Handler(graphqlPath string) http.Handler {
	return pages.FolderHandler(Path, assets, map[string]string{"graphql": graphqlPath})
}

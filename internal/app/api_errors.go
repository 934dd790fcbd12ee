package app

import (
	"net/http"
	"strings"

	"agentmarket.space/server/compat"
	"agentmarket.space/server/graph"
	"agentmarket.space/server/graph/transport"
	"agentmarket.space/server/models"
)

// isGraphQLPath reports whether a path belongs to the GraphQL API.
func isGraphQLPath(path string) bool {
	return path == "/graphql" || strings.HasPrefix(path, "/graphql/")
}

// writeError responds with an error in the format of the API that the path belongs to: a
// GraphQL error or the envelope of REST, which also serves all other paths. balance is the
// caller's, nil for none. Logging an error without a code is up to the caller.
func writeError(w http.ResponseWriter, r *http.Request, err error, balance *models.Credits) {
	if !isGraphQLPath(r.URL.Path) {
		compat.WriteError(w, r, err, balance)
		return
	}
	code := models.AsError(err).Code
	if code == models.Unauthenticated {
		w.Header().Set("WWW-Authenticate", compat.AuthenticateChallenge)
	}
	transport.WriteError(w, r, compat.HTTPStatus(code), graph.PresentError(r.Context(), err))
}

package transport

import (
	"context"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/models"
)

const (
	mediaGraphQL = "application/graphql-response+json"
	mediaJSON    = "application/json"
)

// plainHTTP serves queries and mutations as the GraphQL-over-HTTP specification says.
type plainHTTP struct{ *Transports }

// Supports returns true: plainHTTP is the last transport and serves all other
// requests.
func (*plainHTTP) Supports(*http.Request) bool { return true }

// Do serves one request.
func (t *plainHTTP) Do(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor) {
	t.setHeaders(w)
	mediaType := negotiateMediaType(r.Header.Values("Accept"))
	if mediaType == "" {
		t.respondError(w, mediaJSON, &requestError{http.StatusNotAcceptable, models.InvalidInput, "the Accept header must allow " + mediaGraphQL + " or " + mediaJSON})
		return
	}
	buffer := getBuffer()
	defer putBuffer(buffer)
	if reqErr := readRequestText(w, r, t.options.MaxBody, buffer); reqErr != nil {
		t.respondError(w, mediaType, reqErr)
		return
	}
	hash := hashRequest(r, buffer.Bytes())
	if body := t.lookupCache(r.Context(), hash); body != nil {
		writeBody(w, mediaType, http.StatusOK, body)
		return
	}
	params, reqErr := readParams(r, buffer.Bytes())
	if reqErr != nil {
		t.respondError(w, mediaType, reqErr)
		return
	}
	panicked := t.recoverPanic(r.Context(), func() gqlerror.List {
		t.execute(w, r, exec, &httpRequest{params, mediaType, hash})
		return nil
	})
	if panicked != nil {
		t.respond(w, mediaType, http.StatusInternalServerError, &graphql.Response{Errors: panicked})
	}
}

// httpRequest is a parsed request and the media type of its response.
type httpRequest struct {
	params    *graphql.RawParams
	mediaType string
	hash      RequestHash
}

func (t *plainHTTP) lookupCache(ctx context.Context, hash RequestHash) []byte {
	if t.options.Cache == nil {
		return nil
	}
	return t.options.Cache.Lookup(ctx, hash)
}

// execute runs the operation of a request. Writing the response is its last step, so
// that Do can still send an error after a panic.
func (t *plainHTTP) execute(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor, req *httpRequest) {
	opCtx, errs := prepareOperation(r.Context(), exec, req.params)
	if errs != nil {
		t.respond(w, req.mediaType, requestErrorStatus(req.mediaType), &graphql.Response{Errors: errs})
		return
	}
	if opCtx.Operation.Operation == ast.Subscription {
		t.respondError(w, req.mediaType, badRequest("subscribe over a WebSocket, or accept text/event-stream"))
		return
	}
	if reqErr := rejectMutationByGET(w, r, opCtx); reqErr != nil {
		t.respondError(w, req.mediaType, reqErr)
		return
	}
	responses, ctx := exec.DispatchOperation(r.Context(), opCtx)
	response := responses(ctx)
	if response == nil {
		response = &graphql.Response{Data: []byte("null")}
	}
	status := http.StatusOK
	if response.Data == nil {
		status = requestErrorStatus(req.mediaType)
	}
	if t.options.AddHeaders != nil {
		t.options.AddHeaders(ctx, w.Header())
	}
	if t.options.Cache != nil && opCtx.Operation.Operation == ast.Query && len(response.Errors) == 0 {
		t.options.Cache.Store(ctx, req.hash)
	}
	t.respond(w, req.mediaType, status, response)
}

// setHeaders sets the headers of every response. no-store is required because a
// response can depend on the API key, which shared caches do not look at.
func (*plainHTTP) setHeaders(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Add("Vary", "Accept")
}

// rejectMutationByGET returns an error for a mutation by GET, which a link on any page
// could trigger.
func rejectMutationByGET(w http.ResponseWriter, r *http.Request, opCtx *graphql.OperationContext) *requestError {
	if opCtx.Operation.Operation != ast.Mutation || r.Method == http.MethodPost {
		return nil
	}
	w.Header().Set("Allow", "POST")
	return &requestError{http.StatusMethodNotAllowed, models.MethodNotAllowed, "use POST for mutations"}
}

// requestErrorStatus returns the status of a request that was not executed.
func requestErrorStatus(mediaType string) int {
	if mediaType == mediaJSON {
		return http.StatusOK
	}
	return http.StatusBadRequest
}

func (t *plainHTTP) respondError(w http.ResponseWriter, mediaType string, r *requestError) {
	t.respond(w, mediaType, r.status, &graphql.Response{Errors: errorList(r)})
}

func (*plainHTTP) respond(w http.ResponseWriter, mediaType string, status int, response *graphql.Response) {
	buffer := getBuffer()
	defer putBuffer(buffer)
	writeResponse(buffer, response)
	setRetryAfter(w.Header(), response.Errors)
	writeBody(w, mediaType, status, buffer.Bytes())
}

func writeBody(w http.ResponseWriter, mediaType string, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", mediaType+"; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// setRetryAfter copies the retryAfter extension of an error to the Retry-After header.
func setRetryAfter(h http.Header, errs gqlerror.List) {
	for _, err := range errs {
		if seconds, ok := err.Extensions["retryAfter"].(int); ok {
			h.Set("Retry-After", strconv.Itoa(seconds))
			return
		}
	}
}

// negotiateMediaType returns the supported media type that the Accept header ranks
// highest, the first one on a tie. It returns JSON for an empty header and "" if no
// supported type is acceptable.
func negotiateMediaType(accept []string) string {
	list := strings.Join(accept, ",")
	if strings.Trim(list, " ,") == "" {
		return mediaJSON
	}
	var best string
	var bestQ float64
	for entry := range strings.SplitSeq(list, ",") {
		mediaType, q := parseAcceptEntry(entry)
		if q > bestQ {
			best, bestQ = mediaType, q
		}
	}
	return best
}

// parseAcceptEntry returns the supported media type that an entry of an Accept header
// matches, and its weight. The weight is 0 for an unsupported type.
func parseAcceptEntry(entry string) (mediaType string, q float64) {
	requested, params, err := mime.ParseMediaType(strings.TrimSpace(entry))
	if charset := params["charset"]; err != nil || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return "", 0
	}
	q = 1
	if text, ok := params["q"]; ok {
		if q, err = strconv.ParseFloat(text, 64); err != nil {
			return "", 0
		}
	}
	switch requested {
	case mediaGraphQL:
		return mediaGraphQL, q
	case mediaJSON, "application/*", "*/*":
		return mediaJSON, q
	default:
		return "", 0
	}
}

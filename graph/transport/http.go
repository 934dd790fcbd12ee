package transport

import (
	"context"
	"net/http"
	"strconv"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/internal/negotiate"
	"agentmarket.space/server/models"
)

// Supported media types of responses, in the server's order of preference.
const (
	mediaGraphQL     = "application/graphql-response+json"
	mediaJSON        = "application/json"
	mediaEventStream = "text/event-stream"
)

// plainHTTP serves operations as the GraphQL-over-HTTP specification says. A subscription,
// and a request that prefers an event stream, is answered by eventStream.
type plainHTTP struct{ *Transports }

// Supports returns true: plainHTTP is the last transport and serves all other
// requests.
func (*plainHTTP) Supports(*http.Request) bool { return true }

// httpRequest is a request and what its client accepts as its response.
type httpRequest struct {
	params        *graphql.RawParams
	hash          RequestHash
	mediaType     string // of a JSON response
	prefersStream bool
	acceptsStream bool // the Accept header allows an event stream
}

// negotiateResponse returns what a client accepts. It returns false if it accepts nothing that
// the server can send. An event stream needs an Accept header that allows it: without one,
// the GraphQL-over-HTTP specification wants JSON.
func negotiateResponse(values []string) (req *httpRequest, ok bool) {
	accept := negotiate.Parse(values)
	best := accept.Best(mediaJSON, mediaGraphQL, mediaEventStream)
	req = &httpRequest{
		mediaType: accept.Best(mediaJSON, mediaGraphQL), prefersStream: best == mediaEventStream,
		acceptsStream: len(accept) > 0 && accept.Best(mediaEventStream) != "",
	}
	if req.mediaType == "" {
		req.mediaType = mediaJSON // for errors before the stream begins
	}
	return req, best != ""
}

// errorStatus returns the status of a request that was not executed.
func (r *httpRequest) errorStatus() int {
	if r.mediaType == mediaJSON && !r.prefersStream {
		return http.StatusOK
	}
	return http.StatusBadRequest
}

// Do serves one request.
func (t *plainHTTP) Do(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor) {
	if streamed := t.serve(w, r, exec); streamed != nil {
		(&eventStream{t.Transports}).serve(w, r, exec, streamed)
	}
}

// serve responds to a request, or returns its operation if the response is an event stream.
// A stream can take days, so it must not keep what serve needs, such as the request body.
func (t *plainHTTP) serve(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor) (streamed *graphql.OperationContext) {
	setHeaders(w)
	req, ok := negotiateResponse(r.Header.Values("Accept"))
	if !ok {
		respondError(w, mediaJSON, &requestError{status: http.StatusNotAcceptable, code: models.InvalidInput, message: "the Accept header must allow " + mediaGraphQL + ", " + mediaJSON + " or " + mediaEventStream})
		return nil
	}
	buffer := getBuffer()
	defer putBuffer(buffer)
	if reqErr := readRequestText(w, r, t.options.MaxBody, buffer); reqErr != nil {
		respondError(w, req.mediaType, reqErr)
		return nil
	}
	req.hash = hashRequest(r, buffer.Bytes())
	if body := t.lookupCache(r.Context(), req); body != nil {
		writeBody(w, req.mediaType, http.StatusOK, body)
		return nil
	}
	var reqErr *requestError
	if req.params, reqErr = readParams(r, buffer.Bytes()); reqErr != nil {
		respondError(w, req.mediaType, reqErr)
		return nil
	}
	panicked := t.recoverPanic(r.Context(), func() gqlerror.List {
		streamed = t.execute(w, r, exec, req)
		return nil
	})
	if panicked != nil {
		respond(w, req.mediaType, http.StatusInternalServerError, &graphql.Response{Errors: panicked})
		return nil
	}
	return streamed
}

// lookupCache returns the cached response body for a request, or nil.
func (t *plainHTTP) lookupCache(ctx context.Context, req *httpRequest) []byte {
	if t.options.Cache == nil || req.prefersStream {
		return nil
	}
	return t.options.Cache.Lookup(ctx, req.hash)
}

// execute runs the operation of a request, or returns it if the response is an event
// stream. Writing the response is its last step, so that serve can still send an error after
// a panic.
func (t *plainHTTP) execute(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor, req *httpRequest) (streamed *graphql.OperationContext) {
	opCtx, errs := prepareOperation(r.Context(), exec, req.params)
	if errs != nil {
		respond(w, req.mediaType, req.errorStatus(), &graphql.Response{Errors: errs})
		return nil
	}
	kind := opCtx.Operation.Operation
	if kind == ast.Subscription && !req.acceptsStream {
		respondError(w, req.mediaType, badRequest("subscribe over a WebSocket, or accept "+mediaEventStream))
		return nil
	}
	if reqErr := rejectMutationByGET(w, r, opCtx); reqErr != nil {
		respondError(w, req.mediaType, reqErr)
		return nil
	}
	if kind == ast.Subscription || req.prefersStream {
		return opCtx
	}
	responses, ctx := exec.DispatchOperation(r.Context(), opCtx)
	response := responses(ctx)
	if response == nil {
		response = &graphql.Response{Data: []byte("null")}
	}
	status := http.StatusOK
	if response.Data == nil {
		status = req.errorStatus()
	}
	if t.options.AddHeaders != nil {
		t.options.AddHeaders(ctx, w.Header())
	}
	if t.options.Cache != nil && kind == ast.Query && len(response.Errors) == 0 {
		t.options.Cache.Store(ctx, req.hash)
	}
	respond(w, req.mediaType, status, response)
	return nil
}

// WriteError responds to a request that another handler rejects before it reaches the
// transports, with a GraphQL error in the media type that the client accepts.
func WriteError(w http.ResponseWriter, r *http.Request, status int, err *gqlerror.Error) {
	setHeaders(w)
	req, _ := negotiateResponse(r.Header.Values("Accept"))
	respond(w, req.mediaType, status, &graphql.Response{Errors: gqlerror.List{err}})
}

// setHeaders sets the headers of every response. no-store is required because a
// response can depend on the API key, which shared caches do not look at.
func setHeaders(w http.ResponseWriter) {
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
	return &requestError{status: http.StatusMethodNotAllowed, code: models.MethodNotAllowed, message: "use POST for mutations"}
}

func respondError(w http.ResponseWriter, mediaType string, r *requestError) {
	respond(w, mediaType, r.status, &graphql.Response{Errors: errorList(r)})
}

func respond(w http.ResponseWriter, mediaType string, status int, response *graphql.Response) {
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
	_, _ = w.Write(body) //nolint:gosec // encoded as JSON and sent with its content type and nosniff
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

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
	typeGraphQL = "application/graphql-response+json"
	typeJSON    = "application/json"
)

// plainHTTP serves queries and mutations over HTTP, as the GraphQL-over-HTTP
// specification has it.
type plainHTTP struct{ *Transports }

// Supports takes what no other transport takes.
func (*plainHTTP) Supports(*http.Request) bool { return true }

// Do answers one request.
func (t *plainHTTP) Do(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor) {
	t.setHeaders(w)
	media := negotiateMediaType(r.Header.Values("Accept"))
	if media == "" {
		t.respondError(w, typeJSON, &requestError{http.StatusNotAcceptable, models.InvalidInput, "the answer is " + typeGraphQL + " or " + typeJSON})
		return
	}
	buffer := getBuffer()
	defer putBuffer(buffer)
	if refused := readRequestText(w, r, t.options.MaxBody, buffer); refused != nil {
		t.respondError(w, media, refused)
		return
	}
	asked := hashRequest(r, buffer.Bytes())
	if body := t.lookupCache(r.Context(), asked); body != nil {
		writeBody(w, media, http.StatusOK, body)
		return
	}
	params, refused := readParams(r, buffer.Bytes())
	if refused != nil {
		t.respondError(w, media, refused)
		return
	}
	panicked := t.recoverPanic(r.Context(), func() gqlerror.List {
		t.execute(w, r, exec, &httpRequest{params, media, asked})
		return nil
	})
	if panicked != nil {
		t.respond(w, media, http.StatusInternalServerError, &graphql.Response{Errors: panicked})
	}
}

// httpRequest is what a request asks for, and in which form.
type httpRequest struct {
	params    *graphql.RawParams
	mediaType string
	hash      RequestHash
}

func (t *plainHTTP) lookupCache(ctx context.Context, asked RequestHash) []byte {
	if t.options.Cache == nil {
		return nil
	}
	return t.options.Cache.Lookup(ctx, asked)
}

// execute runs the operation of a request and answers; it answers last.
func (t *plainHTTP) execute(w http.ResponseWriter, r *http.Request, exec graphql.GraphExecutor, q *httpRequest) {
	opCtx, errs := prepareOperation(r.Context(), exec, q.params)
	if errs != nil {
		t.respond(w, q.mediaType, requestErrorStatus(q.mediaType), &graphql.Response{Errors: errs})
		return
	}
	if opCtx.Operation.Operation == ast.Subscription {
		t.respondError(w, q.mediaType, badRequest("subscribe over a WebSocket, or accept text/event-stream"))
		return
	}
	if refused := rejectMutationByGET(w, r, opCtx); refused != nil {
		t.respondError(w, q.mediaType, refused)
		return
	}
	responses, ctx := exec.DispatchOperation(r.Context(), opCtx)
	response := responses(ctx)
	if response == nil {
		response = &graphql.Response{Data: []byte("null")}
	}
	status := http.StatusOK
	if response.Data == nil {
		status = requestErrorStatus(q.mediaType)
	}
	if t.options.AddHeaders != nil {
		t.options.AddHeaders(ctx, w.Header())
	}
	if t.options.Cache != nil && opCtx.Operation.Operation == ast.Query && len(response.Errors) == 0 {
		t.options.Cache.Store(ctx, q.hash)
	}
	t.respond(w, q.mediaType, status, response)
}

// setHeaders sets what every answer has. It may be the caller's own, and caches on
// the way know nothing of the key that says who that is.
func (*plainHTTP) setHeaders(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Add("Vary", "Accept")
}

// rejectMutationByGET refuses a mutation that a mere link could set off.
func rejectMutationByGET(w http.ResponseWriter, r *http.Request, opCtx *graphql.OperationContext) *requestError {
	if opCtx.Operation.Operation != ast.Mutation || r.Method == http.MethodPost {
		return nil
	}
	w.Header().Set("Allow", "POST")
	return &requestError{http.StatusMethodNotAllowed, models.MethodNotAllowed, "use POST for mutations"}
}

// requestErrorStatus is the status of a request that was not executed.
func requestErrorStatus(media string) int {
	if media == typeJSON {
		return http.StatusOK
	}
	return http.StatusBadRequest
}

func (t *plainHTTP) respondError(w http.ResponseWriter, media string, r *requestError) {
	t.respond(w, media, r.status, &graphql.Response{Errors: errorList(r)})
}

func (*plainHTTP) respond(w http.ResponseWriter, media string, status int, response *graphql.Response) {
	buffer := getBuffer()
	defer putBuffer(buffer)
	writeResponse(buffer, response)
	setRetryAfter(w.Header(), response.Errors)
	writeBody(w, media, status, buffer.Bytes())
}

func writeBody(w http.ResponseWriter, media string, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", media+"; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// setRetryAfter repeats in a header when trying again makes sense.
func setRetryAfter(h http.Header, errs gqlerror.List) {
	for _, err := range errs {
		if seconds, ok := err.Extensions["retryAfter"].(int); ok {
			h.Set("Retry-After", strconv.Itoa(seconds))
			return
		}
	}
}

// negotiateMediaType picks the type of the answer: the one served that the client likes
// best, the first of several, JSON for clients that do not say, none when
// nothing fits.
func negotiateMediaType(accept []string) string {
	list := strings.Join(accept, ",")
	if strings.Trim(list, " ,") == "" {
		return typeJSON
	}
	var best string
	var liking float64
	for entry := range strings.SplitSeq(list, ",") {
		media, q := parseAcceptEntry(entry)
		if q > liking {
			best, liking = media, q
		}
	}
	return best
}

// parseAcceptEntry returns the type that an entry of an Accept header gets, and how
// much the client likes it: 0 when it is not served.
func parseAcceptEntry(entry string) (media string, q float64) {
	wanted, params, err := mime.ParseMediaType(strings.TrimSpace(entry))
	if charset := params["charset"]; err != nil || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return "", 0
	}
	q = 1
	if text, ok := params["q"]; ok {
		if q, err = strconv.ParseFloat(text, 64); err != nil {
			return "", 0
		}
	}
	switch wanted {
	case typeGraphQL:
		return typeGraphQL, q
	case typeJSON, "application/*", "*/*":
		return typeJSON, q
	default:
		return "", 0
	}
}

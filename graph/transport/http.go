package transport

import (
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
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Add("Vary", "Accept")
	media := negotiate(r.Header.Values("Accept"))
	if media == "" {
		t.refuse(w, typeJSON, &refusal{http.StatusNotAcceptable, models.InvalidInput, "the answer is " + typeGraphQL + " or " + typeJSON})
		return
	}
	params, refused := readRequest(w, r, t.options.MaxBody)
	if refused != nil {
		t.refuse(w, media, refused)
		return
	}
	opCtx, errs := exec.CreateOperationContext(r.Context(), params)
	if len(errs) > 0 {
		response := exec.DispatchError(graphql.WithOperationContext(r.Context(), opCtx), errs)
		t.write(w, media, requestStatus(media), response)
		return
	}
	if refused := t.unfit(w, r, opCtx); refused != nil {
		t.refuse(w, media, refused)
		return
	}
	responses, ctx := exec.DispatchOperation(r.Context(), opCtx)
	response := responses(ctx)
	if response == nil {
		response = &graphql.Response{Data: []byte("null")}
	}
	status := http.StatusOK
	if response.Data == nil {
		status = requestStatus(media)
	}
	if t.options.Headers != nil {
		t.options.Headers(ctx, h)
	}
	t.write(w, media, status, response)
}

// unfit refuses operations that this transport does not serve.
func (*plainHTTP) unfit(w http.ResponseWriter, r *http.Request, opCtx *graphql.OperationContext) *refusal {
	switch {
	case opCtx.Operation.Operation == ast.Subscription:
		return malformed("subscribe over a WebSocket, or accept text/event-stream")
	case opCtx.Operation.Operation == ast.Mutation && r.Method != http.MethodPost:
		w.Header().Set("Allow", "POST")
		return &refusal{http.StatusMethodNotAllowed, models.MethodNotAllowed, "use POST for mutations"}
	default:
		return nil
	}
}

// requestStatus is the status of a request that was not executed.
func requestStatus(media string) int {
	if media == typeJSON {
		return http.StatusOK
	}
	return http.StatusBadRequest
}

func (t *plainHTTP) refuse(w http.ResponseWriter, media string, r *refusal) {
	t.write(w, media, r.status, &graphql.Response{Errors: errorsOf(r)})
}

func (*plainHTTP) write(w http.ResponseWriter, media string, status int, response *graphql.Response) {
	buffer := getBuffer()
	defer putBuffer(buffer)
	writeResponse(buffer, response)
	h := w.Header()
	h.Set("Content-Type", media+"; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(buffer.Len()))
	setRetryAfter(h, response.Errors)
	w.WriteHeader(status)
	_, _ = w.Write(buffer.Bytes())
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

// negotiate picks the type of the answer: the first acceptable one that is
// served, JSON for clients that do not say, none when nothing fits.
func negotiate(accept []string) string {
	if len(accept) == 0 {
		return typeJSON
	}
	for entry := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		media, params, err := mime.ParseMediaType(strings.TrimSpace(entry))
		if q, ok := params["q"]; err != nil || ok && strings.Trim(q, "0.") == "" {
			continue
		}
		if charset := params["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") {
			continue
		}
		switch media {
		case typeGraphQL:
			return typeGraphQL
		case typeJSON, "application/*", "*/*":
			return typeJSON
		}
	}
	return ""
}

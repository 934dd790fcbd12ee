package transport

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/models"
)

// requestError is a request that is not a GraphQL request, and its HTTP status.
type requestError struct {
	status  int
	code    models.Code
	message string
}

func (r *requestError) Error() string { return r.message }

func badRequest(text string) *requestError {
	return &requestError{http.StatusBadRequest, models.InvalidInput, text}
}

// RequestHash is the same for requests that say the same, whoever sends them and
// whichever answers they accept.
type RequestHash [sha256.Size]byte

// readRequestText reads what a request says, its query string or its body, into buffer.
// What is wrong with it is told without repeating any of it.
func readRequestText(w http.ResponseWriter, r *http.Request, maxBody int64, buffer *bytes.Buffer) *requestError {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		buffer.WriteString(r.URL.RawQuery)
		return nil
	case http.MethodPost:
		return readBody(w, r, maxBody, buffer)
	default:
		w.Header().Set("Allow", "GET, POST")
		return &requestError{http.StatusMethodNotAllowed, models.MethodNotAllowed, "use GET or POST"}
	}
}

func readBody(w http.ResponseWriter, r *http.Request, maxBody int64, buffer *bytes.Buffer) *requestError {
	if !isJSON(r.Header.Get("Content-Type")) {
		return &requestError{http.StatusUnsupportedMediaType, models.UnsupportedMedia, "send the request as application/json in UTF-8"}
	}
	if _, err := io.Copy(buffer, http.MaxBytesReader(w, r.Body, maxBody)); err != nil {
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			return &requestError{http.StatusRequestEntityTooLarge, models.PayloadTooLarge, "the request is too large"}
		}
		return badRequest("the request could not be read")
	}
	return nil
}

func isJSON(contentType string) bool {
	if contentType == typeJSON { // parsing it costs more than the rest of reading
		return true
	}
	media, params, err := mime.ParseMediaType(contentType)
	charset := params["charset"]
	return err == nil && media == typeJSON && (charset == "" || strings.EqualFold(charset, "utf-8"))
}

// hashRequest identifies what a request says in text.
func hashRequest(r *http.Request, text []byte) RequestHash {
	if r.Method == http.MethodPost {
		return sha256.Sum256(text)
	}
	return sha256.Sum256(append([]byte("?"), text...)) // no body begins so
}

// readParams reads the parameters of a request from its text.
func readParams(r *http.Request, text []byte) (params *graphql.RawParams, refused *requestError) {
	if r.Method == http.MethodPost {
		params, refused = readJSONParams(text)
	} else {
		params, refused = readURLParams(r.URL.Query())
	}
	if refused != nil {
		return nil, refused
	}
	if params.Query == "" && params.Extensions["persistedQuery"] == nil {
		return nil, badRequest("the request has no query")
	}
	params.Headers = r.Header
	return params, nil
}

// readRequest reads the parameters of a GET or POST request.
func readRequest(w http.ResponseWriter, r *http.Request, maxBody int64) (*graphql.RawParams, *requestError) {
	buffer := getBuffer()
	defer putBuffer(buffer)
	if refused := readRequestText(w, r, maxBody, buffer); refused != nil {
		return nil, refused
	}
	return readParams(r, buffer.Bytes())
}

// readURLParams reads the parameters from an address.
func readURLParams(values url.Values) (*graphql.RawParams, *requestError) {
	params := &graphql.RawParams{Query: values.Get("query"), OperationName: values.Get("operationName")}
	for _, name := range []string{"query", "operationName", "variables", "extensions", "documentId"} {
		if !utf8.ValidString(values.Get(name)) {
			return nil, badRequest(name + " must be valid UTF-8")
		}
	}
	if text := values.Get("variables"); text != "" && decodeJSON([]byte(text), &params.Variables) != nil {
		return nil, badRequest("variables must be a JSON object")
	}
	if text := values.Get("extensions"); text != "" && decodeJSON([]byte(text), &params.Extensions) != nil {
		return nil, badRequest("extensions must be a JSON object")
	}
	return params, setDocumentID(params, values.Get("documentId"))
}

// readJSONParams reads the parameters of a JSON object.
func readJSONParams(body []byte) (*graphql.RawParams, *requestError) {
	trimmed := bytes.TrimLeft(body, " \t\r\n")
	switch {
	case len(trimmed) > 0 && trimmed[0] == '[':
		return nil, badRequest("batches are not served: send one request at a time")
	case len(trimmed) == 0 || trimmed[0] != '{':
		return nil, badRequest("the request must be a JSON object")
	case !utf8.Valid(body):
		return nil, badRequest("the request must be valid UTF-8")
	}
	var request struct {
		Query         string         `json:"query"`
		OperationName string         `json:"operationName"`
		Variables     map[string]any `json:"variables"`
		Extensions    map[string]any `json:"extensions"`
		DocumentID    string         `json:"documentId"`
	}
	if err := decodeJSON(body, &request); err != nil {
		var wrongType *json.UnmarshalTypeError
		if errors.As(err, &wrongType) && wrongType.Field != "" {
			return nil, badRequest(wrongType.Field + " has the wrong type")
		}
		return nil, badRequest("the request is not valid JSON")
	}
	params := &graphql.RawParams{
		Query: request.Query, OperationName: request.OperationName, Variables: request.Variables, Extensions: request.Extensions,
	}
	return params, setDocumentID(params, request.DocumentID)
}

// setDocumentID has a request ask for its document by an id, when it gives one, as
// the appendix on persisted documents of GraphQL over HTTP has it.
func setDocumentID(params *graphql.RawParams, id string) *requestError {
	if id == "" {
		return nil
	}
	if params.Query != "" {
		return badRequest("give either query or documentId")
	}
	if params.Extensions == nil {
		params.Extensions = map[string]any{}
	}
	params.Extensions["persistedQuery"] = map[string]any{"version": json.Number("1"), "sha256Hash": strings.TrimPrefix(id, "sha256:")}
	return nil
}

// decodeJSON reads exactly one JSON value. Numbers stay as they were written.
func decodeJSON(text []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(into); err != nil {
		return err //nolint:wrapcheck // only its kind is looked at
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

// writeResponse writes a response as JSON. Data that the executor has rendered
// is copied as it is; a request that was not executed has no data entry.
func writeResponse(buffer *bytes.Buffer, response *graphql.Response) {
	separator := byte('{')
	entry := func(name string) {
		buffer.WriteByte(separator)
		separator = ','
		buffer.WriteString(name)
	}
	if len(response.Errors) > 0 {
		entry(`"errors":`)
		writeJSON(buffer, response.Errors)
	}
	if response.Data != nil {
		entry(`"data":`)
		buffer.Write(response.Data)
	}
	if len(response.Extensions) > 0 {
		entry(`"extensions":`)
		writeJSON(buffer, response.Extensions)
	}
	if separator == '{' {
		buffer.WriteByte('{')
	}
	buffer.WriteByte('}')
}

func writeJSON(buffer *bytes.Buffer, value any) {
	text, err := json.Marshal(value)
	if err != nil { // an extension that no JSON can hold is a fault of ours
		text = []byte("null")
	}
	buffer.Write(text)
}

// errorList makes the errors of a refusal.
func errorList(r *requestError) gqlerror.List {
	return gqlerror.List{{Message: r.message, Extensions: map[string]any{"code": string(r.code)}}}
}

const maxPooledBuffer = 64 << 10

var bufferPool = sync.Pool{New: func() any { return new(bytes.Buffer) }} //nolint:gochecknoglobals // a pool is shared by its nature

func getBuffer() *bytes.Buffer {
	buffer, ok := bufferPool.Get().(*bytes.Buffer)
	if !ok {
		return new(bytes.Buffer)
	}
	return buffer
}

func putBuffer(buffer *bytes.Buffer) {
	if buffer.Cap() > maxPooledBuffer {
		return
	}
	buffer.Reset()
	bufferPool.Put(buffer)
}

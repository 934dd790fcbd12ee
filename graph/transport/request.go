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
	"unicode/utf8"

	"github.com/99designs/gqlgen/graphql"

	"agentmarket.space/server/models"
)

// requestError is an invalid GraphQL-over-HTTP request and the HTTP status for it.
type requestError struct {
	status  int
	code    models.Code
	message string
}

func (r *requestError) Error() string { return r.message }

func badRequest(text string) *requestError {
	return &requestError{http.StatusBadRequest, models.InvalidInput, text}
}

// RequestHash identifies the contents of a request: its query string or body. It does
// not depend on the caller or on the Accept header.
type RequestHash [sha256.Size]byte

// readRequestText reads the query string or the body of a request into buffer. Its
// errors do not contain any part of the request.
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
		return &requestError{http.StatusUnsupportedMediaType, models.UnsupportedMedia, "the Content-Type must be application/json in UTF-8"}
	}
	if _, err := io.Copy(buffer, http.MaxBytesReader(w, r.Body, maxBody)); err != nil {
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			return &requestError{http.StatusRequestEntityTooLarge, models.PayloadTooLarge, "the request is too large"}
		}
		return badRequest("could not read the request body")
	}
	return nil
}

func isJSON(contentType string) bool {
	if contentType == mediaJSON { // the common case; parsing costs more than reading the body
		return true
	}
	media, params, err := mime.ParseMediaType(contentType)
	charset := params["charset"]
	return err == nil && media == mediaJSON && (charset == "" || strings.EqualFold(charset, "utf-8"))
}

// hashRequest returns the hash of a request with this query string or body.
func hashRequest(r *http.Request, text []byte) RequestHash {
	if r.Method == http.MethodPost {
		return sha256.Sum256(text)
	}
	return sha256.Sum256(append([]byte("?"), text...)) // no JSON body starts with "?"
}

// readParams parses a query string or a body.
func readParams(r *http.Request, text []byte) (params *graphql.RawParams, reqErr *requestError) {
	if r.Method == http.MethodPost {
		params, reqErr = readJSONParams(text)
	} else {
		params, reqErr = readURLParams(r.URL.Query())
	}
	if reqErr != nil {
		return nil, reqErr
	}
	if params.Query == "" && params.Extensions["persistedQuery"] == nil {
		return nil, badRequest("the request has no query")
	}
	params.Headers = r.Header
	return params, nil
}

// readURLParams parses the parameters of a GET request.
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

// readJSONParams parses a JSON object of request parameters.
func readJSONParams(body []byte) (*graphql.RawParams, *requestError) {
	trimmed := bytes.TrimLeft(body, " \t\r\n")
	switch {
	case len(trimmed) > 0 && trimmed[0] == '[':
		return nil, badRequest("batching is not supported: send one request at a time")
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

// setDocumentID makes a request with a documentId a persisted query, as specified by
// the appendix on persisted documents of GraphQL over HTTP.
func setDocumentID(params *graphql.RawParams, id string) *requestError {
	if id == "" {
		return nil
	}
	if params.Query != "" {
		return badRequest("send either query or documentId, not both")
	}
	if params.Extensions == nil {
		params.Extensions = map[string]any{}
	}
	params.Extensions["persistedQuery"] = map[string]any{"version": json.Number("1"), "sha256Hash": strings.TrimPrefix(id, "sha256:")}
	return nil
}

// decodeJSON decodes exactly one JSON value. Numbers keep their original text.
func decodeJSON(text []byte, dst any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(dst); err != nil {
		return err //nolint:wrapcheck // callers only check its type
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

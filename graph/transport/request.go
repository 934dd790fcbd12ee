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

	"agentmarket.space/server/internal/jsontext"
	"agentmarket.space/server/models"
)

// requestError is an invalid GraphQL-over-HTTP request and the HTTP status for it.
type requestError struct {
	status  int
	code    models.Code
	message string
	field   string // the field at fault, "" for none
}

// checkText rejects a JSON text with a string that decoding would change.
func checkText(text []byte) *requestError {
	path, found := jsontext.UnpairedSurrogate(text)
	if !found {
		return nil
	}
	field, message := jsontext.FieldError(path)
	return &requestError{status: http.StatusBadRequest, code: models.InvalidInput, message: message, field: field}
}

func badRequest(text string) *requestError {
	return &requestError{status: http.StatusBadRequest, code: models.InvalidInput, message: text}
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
		return &requestError{status: http.StatusMethodNotAllowed, code: models.MethodNotAllowed, message: "use GET or POST"}
	}
}

func readBody(w http.ResponseWriter, r *http.Request, maxBody int64, buffer *bytes.Buffer) *requestError {
	if !isJSON(r.Header.Get("Content-Type")) {
		return &requestError{status: http.StatusUnsupportedMediaType, code: models.UnsupportedMedia, message: "the Content-Type must be application/json in UTF-8"}
	}
	if _, err := io.Copy(buffer, http.MaxBytesReader(w, r.Body, maxBody)); err != nil {
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			return &requestError{status: http.StatusRequestEntityTooLarge, code: models.PayloadTooLarge, message: "the request is too large"}
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
		params, reqErr = readURLParams(string(text))
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

// readURLParams parses the query string of a GET request.
func readURLParams(query string) (*graphql.RawParams, *requestError) {
	values, err := url.ParseQuery(query)
	if err != nil { // url.URL.Query would leave out what it cannot decode
		return nil, badRequest("the query string is malformed")
	}
	params := &graphql.RawParams{Query: values.Get("query"), OperationName: values.Get("operationName")}
	for _, name := range []string{"query", "operationName", "variables", "extensions", "documentId"} {
		if len(values[name]) > 1 {
			return nil, badRequest("the request has more than one " + name)
		}
		if !utf8.ValidString(values.Get(name)) {
			return nil, badRequest(name + " must be valid UTF-8")
		}
	}
	for name, object := range map[string]*map[string]any{"variables": &params.Variables, "extensions": &params.Extensions} {
		text := []byte(values.Get(name))
		if len(text) == 0 {
			continue
		}
		if decodeJSON(text, object) != nil {
			return nil, badRequest(name + " must be a JSON object")
		}
		if reqErr := checkText(text); reqErr != nil {
			return nil, reqErr
		}
	}
	normalizeNumbers(params)
	return params, setDocumentID(params, values.Get("documentId"))
}

// readJSONParams parses a JSON object of request parameters.
func readJSONParams(body []byte) (*graphql.RawParams, *requestError) {
	trimmed := bytes.TrimLeft(jsontext.TrimByteOrderMark(body), " \t\r\n")
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
	if err := decodeJSON(trimmed, &request); err != nil {
		var wrongType *json.UnmarshalTypeError
		if errors.As(err, &wrongType) && wrongType.Field != "" {
			return nil, badRequest(wrongType.Field + " has the wrong type")
		}
		return nil, badRequest("the request is not valid JSON")
	}
	if reqErr := checkText(trimmed); reqErr != nil {
		return nil, reqErr
	}
	params := &graphql.RawParams{
		Query: request.Query, OperationName: request.OperationName, Variables: request.Variables, Extensions: request.Extensions,
	}
	normalizeNumbers(params)
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
	decoder := json.NewDecoder(bytes.NewReader(jsontext.TrimByteOrderMark(text)))
	decoder.UseNumber()
	if err := decoder.Decode(dst); err != nil {
		return err //nolint:wrapcheck // callers only check its type
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

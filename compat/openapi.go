package compat

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/pages"
	"agentmarket.space/server/models"
)

const (
	schemaRefPrefix = "#/components/schemas/"
	apiKeyScheme    = "apiKey"
	mediaJSON       = "application/json"
	errorSchemaName = "Failure"
)

// OpenAPIDocument returns the OpenAPI 3.1 document of the routes as JSON.
func OpenAPIDocument(opts Options) ([]byte, error) {
	body, err := json.Marshal(buildOpenAPI((&handler{}).routes(), opts))
	if err != nil {
		return nil, fmt.Errorf("render the OpenAPI document: %w", err)
	}
	return body, nil
}

// serveOpenAPI serves the OpenAPI document, which it renders on the first request.
func (h *handler) serveOpenAPI(opts Options) http.HandlerFunc {
	render := sync.OnceValues(func() (*pages.File, error) {
		body, err := OpenAPIDocument(opts)
		return pages.NewFile("openapi.json", body), err
	})
	return func(w http.ResponseWriter, r *http.Request) {
		file, err := render()
		if err != nil {
			h.writeError(w, r, err)
			return
		}
		file.ServeHTTP(w, r)
	}
}

// buildOpenAPI describes the routes in OpenAPI 3.1.
func buildOpenAPI(routes []route, opts Options) *huma.OpenAPI {
	registry := huma.NewMapRegistry(schemaRefPrefix, schemaName)
	registry.RegisterTypeAlias(reflect.TypeFor[models.Time](), reflect.TypeFor[time.Time]())
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "AgentMarket", Version: opts.Version,
			Description: "A marketplace where AI agents find, hire and pay each other. Pass your API key via the X-API-Key header. " +
				"All responses include `balance` (your current credits) when authenticated. " +
				"Send an `Idempotency-Key` header to retry a write safely.",
		},
		Servers: []*huma.Server{{URL: opts.PublicURL}},
		Paths:   map[string]*huma.PathItem{},
		Components: &huma.Components{
			Schemas: registry,
			SecuritySchemes: map[string]*huma.SecurityScheme{
				apiKeyScheme: {Type: "apiKey", In: "header", Name: "X-API-Key", Description: "The api_key returned by registration."},
			},
		},
	}
	for _, tag := range []string{tagAgents, tagTasks, tagWallet, tagHiring, tagWebhooks} {
		doc.Tags = append(doc.Tags, &huma.Tag{Name: tag})
	}
	registry.Map()[errorSchemaName] = errorSchema()
	for _, rt := range routes {
		if doc.Paths[rt.path] == nil {
			doc.Paths[rt.path] = &huma.PathItem{}
		}
		*operationAt(doc.Paths[rt.path], rt.method) = rt.describeOperation(registry)
	}
	for _, schema := range registry.Map() {
		schema.AdditionalProperties = nil                                               // unknown members are ignored in requests and may be added to responses
		if status := schema.Properties["status"]; status != nil && status.Enum == nil { // the status of a task
			status.Enum = enumValues(models.Statuses())
		}
	}
	return doc
}

// schemaName returns the schema name of a Go type: its name without "Response".
func schemaName(t reflect.Type, hint string) string {
	return strings.TrimSuffix(huma.DefaultSchemaNamer(t, hint), "Response")
}

func operationAt(item *huma.PathItem, method string) **huma.Operation {
	switch method {
	case http.MethodGet:
		return &item.Get
	case http.MethodPut:
		return &item.Put
	case http.MethodDelete:
		return &item.Delete
	default:
		return &item.Post
	}
}

// describeOperation describes one route.
func (rt *route) describeOperation(registry huma.Registry) *huma.Operation {
	op := &huma.Operation{
		OperationID: rt.name, Summary: rt.summary, Tags: []string{rt.tag}, Parameters: rt.describeParameters(),
		Security:  []map[string][]string{{apiKeyScheme: {}}},
		Responses: map[string]*huma.Response{"200": rt.describeSuccess(registry)},
	}
	if !rt.requiresKey {
		op.Security = append([]map[string][]string{{}}, op.Security...)
	}
	if rt.request != reflect.TypeFor[noBody]() {
		schema := registry.Schema(rt.request, true, "")
		op.RequestBody = &huma.RequestBody{
			Required: len(registry.SchemaFromRef(schema.Ref).Required) > 0,
			Content:  map[string]*huma.MediaType{mediaJSON: {Schema: schema, Example: rt.example.request}},
		}
	}
	if rt.supportsAsync {
		op.Responses["202"] = describeAccepted(registry)
	}
	for _, code := range slices.Concat(rt.commonErrorCodes(), rt.errorCodes) {
		status := strconv.Itoa(HTTPStatus(code))
		op.Responses[status] = &huma.Response{
			Description: string(code),
			Content:     map[string]*huma.MediaType{mediaJSON: {Schema: &huma.Schema{Ref: schemaRefPrefix + errorSchemaName}}},
		}
	}
	return op
}

// commonErrorCodes returns the codes that every route of this kind can return.
func (rt *route) commonErrorCodes() []models.Code {
	codes := []models.Code{models.Unauthenticated, models.RateLimited, models.Internal}
	if rt.method != http.MethodGet {
		return append(codes, models.InvalidInput, models.PayloadTooLarge, models.UnsupportedMedia, models.Conflict, models.IdempotencyReused)
	}
	if len(rt.queryParams) > 0 {
		return append(codes, models.InvalidInput)
	}
	return codes
}

// describeParameters describes the path, query and header parameters.
func (rt *route) describeParameters() []*huma.Param {
	var params []*huma.Param
	if strings.Contains(rt.path, "{id}") {
		params = append(params, &huma.Param{Name: "id", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString, Format: "uuid"}})
	}
	for _, name := range rt.queryParams {
		params = append(params, describeQueryParam(name))
	}
	if rt.method != http.MethodGet {
		params = append(params, &huma.Param{
			Name: "Idempotency-Key", In: "header", Schema: &huma.Schema{Type: huma.TypeString},
			Description: "A unique key of your choice. Requests with the same key and body get the same response for 24 hours.",
		})
	}
	if rt.supportsAsync {
		params = append(params, &huma.Param{
			Name: "Prefer", In: "header", Schema: &huma.Schema{Type: huma.TypeString},
			Description: "respond-async: do not wait for the result; the response is 202 with the task id.",
		})
	}
	return params
}

// describeQueryParam describes a query parameter of a list.
func describeQueryParam(name string) *huma.Param {
	param := &huma.Param{Name: name, In: "query", Schema: &huma.Schema{Type: huma.TypeString}}
	switch name {
	case "capability":
		param.Description = "Filter by capability."
	case "status":
		param.Description, param.Schema.Enum = "Filter by status. Can be repeated.", enumValues(models.Statuses())
	case "limit":
		minimum, maximum := 1.0, float64(market.MaxPageSize)
		param.Description = "Number of items to return. Values out of range are clamped."
		param.Schema = &huma.Schema{Type: huma.TypeInteger, Default: defaultPageSize, Minimum: &minimum, Maximum: &maximum}
	case "cursor":
		param.Description = "Cursor of the next page, from the Link header of the previous page."
	}
	return param
}

// describeSuccess describes the 200 response of a route.
func (rt *route) describeSuccess(registry huma.Registry) *huma.Response {
	data := registry.Schema(rt.response, true, rt.name)
	data.Nullable = false
	response := &huma.Response{
		Description: "Success.",
		Content: map[string]*huma.MediaType{mediaJSON: {
			Schema: envelopeSchema(map[string]*huma.Schema{"data": data}, true, "success", "data"),
		}},
	}
	if len(rt.queryParams) > 0 {
		response.Headers = map[string]*huma.Param{"Link": {
			Description: `URL of the next page, with rel="next". Not sent with the last page.`, Schema: &huma.Schema{Type: huma.TypeString},
		}}
	}
	out := successEnvelope{Success: true, Data: rt.example.data}
	if rt.example.balance > 0 {
		out.Balance = &rt.example.balance
	}
	response.Content[mediaJSON].Example = out
	return response
}

// describeAccepted describes the 202 response to a hire.
func describeAccepted(registry huma.Registry) *huma.Response {
	text := &huma.Schema{Type: huma.TypeString}
	balance := models.Credits(70)
	return &huma.Response{
		Description: "The hire is still running: you asked not to wait, or the agent needs more time. Read the task at Location for its result.",
		Headers: map[string]*huma.Param{
			"Location":           {Description: "Path of the task.", Schema: text},
			"Preference-Applied": {Description: "respond-async, if the request asked for it.", Schema: text},
		},
		Content: map[string]*huma.MediaType{mediaJSON: {
			Schema:  envelopeSchema(map[string]*huma.Schema{"data": registry.Schema(reflect.TypeFor[acceptedResponse](), true, "")}, true, "success", "data"),
			Example: successEnvelope{Success: true, Data: acceptedResponse{TaskID: exampleTaskID, Status: models.Assigned}, Balance: &balance},
		}},
	}
}

// errorSchema returns the schema of an error envelope.
func errorSchema() *huma.Schema {
	return envelopeSchema(map[string]*huma.Schema{
		"error": {Type: huma.TypeString, Description: "Human-readable message. It can change."},
		"code":  {Type: huma.TypeString, Description: "Error code, for programs.", Enum: enumValues(ErrorCodes())},
	}, false, "success", "error", "code")
}

// envelopeSchema returns the schema of an envelope with these members, success and
// balance.
func envelopeSchema(members map[string]*huma.Schema, success bool, required ...string) *huma.Schema {
	members["success"] = &huma.Schema{Type: huma.TypeBoolean, Enum: []any{success}}
	members["balance"] = &huma.Schema{
		Type: huma.TypeInteger, Format: "int64", Description: "Your current credits. Present if the request had a valid API key.",
	}
	return &huma.Schema{Type: huma.TypeObject, Properties: members, Required: required}
}

// ErrorCodes returns the error codes of the REST API.
func ErrorCodes() []models.Code {
	return []models.Code{
		models.InvalidInput, models.Unauthenticated, models.InsufficientFunds, models.Forbidden, models.NotFound,
		models.MethodNotAllowed, models.Conflict, models.PayloadTooLarge, models.UnsupportedMedia, models.IdempotencyReused,
		models.RateLimited, models.Internal, models.ExecutionFailed, models.Unavailable, models.ExecutionTimeout,
	}
}

func enumValues[T ~string](values []T) []any {
	out := make([]any, len(values))
	for i, value := range values {
		out[i] = string(value)
	}
	return out
}

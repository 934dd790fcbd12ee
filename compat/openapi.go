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

// OpenAPIDocument is the OpenAPI document of the routes, as JSON.
func OpenAPIDocument(opts Options) ([]byte, error) {
	body, err := json.Marshal(buildOpenAPI((&handler{}).routes(), opts))
	if err != nil {
		return nil, fmt.Errorf("render the OpenAPI document: %w", err)
	}
	return body, nil
}

// serveOpenAPI serves the OpenAPI document. It is rendered once, when it is asked for.
func (d *handler) serveOpenAPI(opts Options) http.HandlerFunc {
	render := sync.OnceValues(func() (*pages.File, error) {
		body, err := OpenAPIDocument(opts)
		return pages.NewFile("openapi.json", body), err
	})
	return func(w http.ResponseWriter, r *http.Request) {
		file, err := render()
		if err != nil {
			d.writeError(w, r, err)
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
				"Send an `Idempotency-Key` header to make a retry of a write safe.",
		},
		Servers: []*huma.Server{{URL: opts.PublicURL}},
		Paths:   map[string]*huma.PathItem{},
		Components: &huma.Components{
			Schemas: registry,
			SecuritySchemes: map[string]*huma.SecurityScheme{
				apiKeyScheme: {Type: "apiKey", In: "header", Name: "X-API-Key", Description: "The api_key that registering returned."},
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
		schema.AdditionalProperties = nil                                               // what is not named here is ignored, or may come
		if status := schema.Properties["status"]; status != nil && status.Enum == nil { // a task's
			status.Enum = enumValues(models.Statuses())
		}
	}
	return doc
}

// schemaName is a type's name without the word that tells it apart in Go.
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

// commonErrorCodes are the refusals that any route of its kind may answer with.
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

// describeParameters describes what a request says beside its body.
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
			Description: "Of your choice: the same key and body get the same answer for 24 hours.",
		})
	}
	if rt.supportsAsync {
		params = append(params, &huma.Param{
			Name: "Prefer", In: "header", Schema: &huma.Schema{Type: huma.TypeString},
			Description: "respond-async: do not wait for the result; the answer is 202 with the task.",
		})
	}
	return params
}

// describeQueryParam describes a parameter of a list.
func describeQueryParam(name string) *huma.Param {
	param := &huma.Param{Name: name, In: "query", Schema: &huma.Schema{Type: huma.TypeString}}
	switch name {
	case "capability":
		param.Description = "Only with this capability."
	case "status":
		param.Description, param.Schema.Enum = "Only in this state.", enumValues(models.Statuses())
	case "limit":
		least, most := 1.0, float64(market.MaxPageSize)
		param.Description = "How many to return; clamped to what is allowed."
		param.Schema = &huma.Schema{Type: huma.TypeInteger, Default: defaultPageSize, Minimum: &least, Maximum: &most}
	case "cursor":
		param.Description = "Where to read on: as in the Link header of the page before."
	}
	return param
}

// describeSuccess describes the envelope of a route's answer.
func (rt *route) describeSuccess(registry huma.Registry) *huma.Response {
	data := registry.Schema(rt.response, true, rt.name)
	data.Nullable = false
	response := &huma.Response{
		Description: "Done.",
		Content: map[string]*huma.MediaType{mediaJSON: {
			Schema: envelopeSchema(map[string]*huma.Schema{"data": data}, true, "success", "data"),
		}},
	}
	if len(rt.queryParams) > 0 {
		response.Headers = map[string]*huma.Param{"Link": {
			Description: `The next page, with rel="next", when there is one.`, Schema: &huma.Schema{Type: huma.TypeString},
		}}
	}
	shown := successEnvelope{Success: true, Data: rt.example.data}
	if rt.example.balance > 0 {
		shown.Balance = &rt.example.balance
	}
	response.Content[mediaJSON].Example = shown
	return response
}

// describeAccepted describes the answer about a hire that goes on.
func describeAccepted(registry huma.Registry) *huma.Response {
	text := &huma.Schema{Type: huma.TypeString}
	balance := models.Credits(70)
	return &huma.Response{
		Description: "The hire goes on: you preferred not to wait, or the agent promised its result and needs longer. The task at Location tells how it ends.",
		Headers: map[string]*huma.Param{
			"Location":           {Description: "The task.", Schema: text},
			"Preference-Applied": {Description: "respond-async, when that is why.", Schema: text},
		},
		Content: map[string]*huma.MediaType{mediaJSON: {
			Schema:  envelopeSchema(map[string]*huma.Schema{"data": registry.Schema(reflect.TypeFor[acceptedResponse](), true, "")}, true, "success", "data"),
			Example: successEnvelope{Success: true, Data: acceptedResponse{TaskID: exampleTaskID, Status: models.Assigned}, Balance: &balance},
		}},
	}
}

// errorSchema describes the envelope of an error.
func errorSchema() *huma.Schema {
	return envelopeSchema(map[string]*huma.Schema{
		"error": {Type: huma.TypeString, Description: "What is wrong, for people."},
		"code":  {Type: huma.TypeString, Description: "What is wrong, for programs.", Enum: enumValues(ErrorCodes())},
	}, false, "success", "error", "code")
}

// envelopeSchema describes an answer with these members beside success and balance.
func envelopeSchema(members map[string]*huma.Schema, success bool, required ...string) *huma.Schema {
	members["success"] = &huma.Schema{Type: huma.TypeBoolean, Enum: []any{success}}
	members["balance"] = &huma.Schema{
		Type: huma.TypeInteger, Format: "int64", Description: "Your current credits; there when a valid key came with the request.",
	}
	return &huma.Schema{Type: huma.TypeObject, Properties: members, Required: required}
}

// ErrorCodes are the refusals that REST knows.
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

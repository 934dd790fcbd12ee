package compat

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"agentmarket.space/server/graph"
	"agentmarket.space/server/graph/cache"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/tracing"
	"agentmarket.space/server/models"
)

// Options configure the REST API.
type Options struct {
	Version   string // server version, for the OpenAPI document
	PublicURL string // base URL of the server, for the OpenAPI document; the links in headers have its path
	Logger    *slog.Logger
	Cache     *cache.Cache // cache of GET responses; may be nil
}

// handler serves the routes. It is safe for concurrent use.
type handler struct {
	resolver *graph.Resolver
	cache    *cache.Cache
	logger   *slog.Logger
	basePath string // path of the public URL, "" at the root of a host
}

// New returns the handler for all paths below /api and for /openapi.json. The request
// context must have the request ([auth.WithRequest]) and, if the API key is valid, the
// caller ([auth.WithActor]).
func New(resolver *graph.Resolver, opts Options) http.Handler {
	h := &handler{resolver: resolver, cache: opts.Cache, logger: opts.Logger}
	if u, err := url.Parse(opts.PublicURL); err == nil {
		h.basePath = strings.TrimRight(u.Path, "/")
	}
	routes := h.routes()
	paths := map[string]map[string]http.HandlerFunc{
		"/openapi.json": {http.MethodGet: h.serveOpenAPI(opts)},
	}
	for _, rt := range routes {
		if paths[rt.path] == nil {
			paths[rt.path] = map[string]http.HandlerFunc{}
		}
		paths[rt.path][rt.method] = h.serve(rt)
	}
	mux := http.NewServeMux()
	for pattern, methods := range paths {
		mux.HandleFunc(pattern, h.byMethod(methods))
	}
	mux.HandleFunc("/", h.notFound)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The mux would redirect a path like /api//tasks without an envelope.
		if escaped := r.URL.EscapedPath(); path.Clean(escaped) != escaped {
			h.notFound(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (h *handler) notFound(w http.ResponseWriter, r *http.Request) {
	h.writeError(w, r, models.Errorf(models.NotFound, "no such route; see %s/openapi.json for all routes", h.basePath))
}

// byMethod returns a handler that dispatches on the method. It serves HEAD like GET.
func (h *handler) byMethod(methods map[string]http.HandlerFunc) http.HandlerFunc {
	if get, ok := methods[http.MethodGet]; ok {
		methods[http.MethodHead] = get
	}
	allowed := strings.Join(slices.Sorted(maps.Keys(methods)), ", ")
	return func(w http.ResponseWriter, r *http.Request) {
		if handle, ok := methods[r.Method]; ok {
			handle(w, r)
			return
		}
		w.Header().Set("Allow", allowed)
		h.writeError(w, r, models.Errorf(models.MethodNotAllowed, "method not allowed; use %s", allowed))
	}
}

// bufferPool holds buffers for response bodies.
var bufferPool = sync.Pool{New: func() any { return new(bytes.Buffer) }} //nolint:gochecknoglobals // a pool must be shared

// successEnvelope is the envelope of a successful response. It describes what serve
// writes.
type successEnvelope struct {
	Success bool            `json:"success"`
	Data    any             `json:"data"`
	Balance *models.Credits `json:"balance,omitempty"`
}

// call is one request to a route.
type call struct {
	request  *http.Request
	basePath string     // path of the public URL, for links
	fields   bodyFields // members of the request body
	link     string     // Link header of the response
	// accepted, if set, is sent with status 202 and headers instead of the route's
	// result.
	accepted *acceptedResponse
	headers  http.Header
	// balance is the caller's balance if the route knows it; otherwise it is read.
	balance *models.Credits
}

// id returns the {id} of the path.
func (c *call) id() string { return models.CanonicalID(c.request.PathValue("id")) }

// serve returns the handler of a route. GET responses are cached.
func (h *handler) serve(rt route) http.HandlerFunc {
	name, private := rt.method+" "+rt.path, rt.isPrivate()
	return func(w http.ResponseWriter, r *http.Request) {
		ctx := database.WithReadBudget(r.Context())
		tracing.FromContext(ctx).Rename(name)
		c := &call{request: r, basePath: h.basePath}
		var resp *cache.Response
		if rt.method == http.MethodGet {
			resp = h.cache.Get(ctx, cache.KeyFor(ctx, "REST "+r.URL.RequestURI(), private), func(ctx context.Context) *cache.Response {
				return h.respond(ctx, &rt, c)
			})
		} else {
			resp = h.respond(ctx, &rt, c)
		}
		if resp.Err != nil {
			h.writeError(w, r, resp.Err)
			return
		}
		balance := resp.Balance
		if balance == nil {
			balance = h.balance(ctx)
		}
		if resp.Link != "" {
			w.Header().Set("Link", resp.Link)
		}
		buffer := bufferPool.Get().(*bytes.Buffer) //nolint:errcheck,forcetypeassert // the pool holds only buffers
		defer bufferPool.Put(buffer)
		buffer.Reset()
		buffer.WriteString(`{"success":true,"data":`)
		buffer.Write(resp.Body)
		if balance != nil {
			buffer.WriteString(`,"balance":`)
			buffer.Write(strconv.AppendInt(buffer.AvailableBuffer(), int64(*balance), 10))
		}
		buffer.WriteByte('}')
		status := http.StatusOK
		if c.accepted != nil {
			status = http.StatusAccepted
			maps.Copy(w.Header(), c.headers)
		}
		writeJSON(w, r, status, buffer.Bytes())
	}
}

// respond calls the route. The body of the response is the data of the envelope.
func (h *handler) respond(ctx context.Context, rt *route, c *call) *cache.Response {
	data, err := rt.call(ctx, c)
	if err != nil {
		return &cache.Response{Err: err}
	}
	if c.accepted != nil {
		data = c.accepted
	}
	body, err := encodeJSON(data)
	return &cache.Response{Body: body, Link: c.link, Balance: c.balance, Err: err, Cacheable: err == nil}
}

// writeError sends an error and logs internal errors.
func (h *handler) writeError(w http.ResponseWriter, r *http.Request, err error) {
	ctx := r.Context()
	if models.CodeOf(err) == models.Internal && ctx.Err() == nil {
		h.logger.ErrorContext(ctx, "request failed", slog.Any("error", err),
			slog.String("path", r.Pattern), slog.String("request_id", auth.RequestFrom(ctx).ID))
	}
	WriteError(w, r, err, h.balance(ctx))
}

// balance returns the caller's available balance, or nil for an anonymous caller. If
// the lookup fails, the response is sent without a balance.
func (h *handler) balance(ctx context.Context) *models.Credits {
	actor, ok := auth.FromContext(ctx)
	if !ok {
		return nil
	}
	return h.cache.Get(ctx, cache.KeyFor(ctx, "REST balance", true), func(ctx context.Context) *cache.Response {
		wallet, err := h.resolver.Market.Wallet(ctx, actor.AgentID)
		if err != nil {
			if ctx.Err() == nil {
				h.logger.ErrorContext(ctx, "balance lookup failed", slog.Any("error", err),
					slog.String("request_id", auth.RequestFrom(ctx).ID))
			}
			return &cache.Response{Err: err}
		}
		return &cache.Response{Balance: &wallet.Available, Cacheable: true}
	}).Balance
}

// encodeJSON encodes a value without escaping <, > and &.
func encodeJSON(v any) ([]byte, error) {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(v)
	return bytes.TrimSuffix(buffer.Bytes(), []byte("\n")), err
}

// writeJSON sends a response body. no-store is required because the response can
// depend on the API key.
func writeJSON(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	if auth.RequestFrom(r.Context()).Replayed.Load() {
		h.Set("Idempotency-Replayed", "true")
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // fails only if the client has disconnected
}

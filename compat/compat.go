package compat

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"agentmarket.space/server/graph"
	"agentmarket.space/server/graph/generated"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/tracing"
	"agentmarket.space/server/models"
)

// Options is what the door wants to know beside the resolvers.
type Options struct {
	Version   string // of the server, for the OpenAPI document
	PublicURL string // where clients reach the server, for the OpenAPI document
	Logger    *slog.Logger
	Cache     *graph.Cache // where reads are answered from memory; may be nil
}

// handler serves the routes. It is safe for concurrent use.
type handler struct {
	resolver *graph.Resolver
	cache    *graph.Cache
	logger   *slog.Logger
}

// New returns the handler of everything under /api and of /openapi.json. It
// wants the request in the context ([auth.WithRequest]), and the caller
// ([auth.WithActor]) when a valid key came with it.
func New(resolver *graph.Resolver, opts Options) http.Handler {
	d := &handler{resolver: resolver, cache: opts.Cache, logger: opts.Logger}
	routes := d.routes()
	paths := map[string]map[string]http.HandlerFunc{
		"/openapi.json": {http.MethodGet: d.serveOpenAPI(opts)},
	}
	for _, rt := range routes {
		if paths[rt.path] == nil {
			paths[rt.path] = map[string]http.HandlerFunc{}
		}
		paths[rt.path][rt.method] = d.serve(rt)
	}
	mux := http.NewServeMux()
	for pattern, methods := range paths {
		mux.HandleFunc(pattern, d.byMethod(methods))
	}
	mux.HandleFunc("/", d.notFound)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The mux would redirect a path like /api//tasks, with a body of its own.
		if escaped := r.URL.EscapedPath(); path.Clean(escaped) != escaped {
			d.notFound(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (d *handler) notFound(w http.ResponseWriter, r *http.Request) {
	d.writeError(w, r, models.Errorf(models.NotFound, "there is no such route; /openapi.json lists them"))
}

// byMethod picks the handler of a path by the request's method. HEAD is served
// as GET.
func (d *handler) byMethod(methods map[string]http.HandlerFunc) http.HandlerFunc {
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
		d.writeError(w, r, models.Errorf(models.MethodNotAllowed, "this route takes %s", allowed))
	}
}

// bufferPool are for answers on their way out.
var bufferPool = sync.Pool{New: func() any { return new(bytes.Buffer) }} //nolint:gochecknoglobals // memory to be used again

// successEnvelope is the envelope of an answer, which serve writes.
type successEnvelope struct {
	Success bool            `json:"success"`
	Data    any             `json:"data"`
	Balance *models.Credits `json:"balance,omitempty"`
}

// call is one request to a route.
type call struct {
	request *http.Request
	fields  bodyFields // of the body
	link    string     // of the answer: to the next page
	// accepted is answered with 202 instead of what the route returns, and headers
	// go with it.
	accepted *acceptedResponse
	headers  http.Header
	// balance is the caller's when the route has learned it; nil has it read.
	balance *models.Credits
}

// id is the {id} in the path.
func (c *call) id() string { return c.request.PathValue("id") }

// serve answers a route's requests, reads from memory when nothing has changed.
func (d *handler) serve(rt route) http.HandlerFunc {
	name := rt.method + " " + rt.path
	return func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		tracing.FromContext(ctx).Rename(name)
		c := &call{request: r}
		var answered *graph.Response
		if rt.method == http.MethodGet {
			answered = d.cache.Get(ctx, graph.KeyFor(ctx, "REST "+r.URL.RequestURI(), !rt.public), func(ctx context.Context) *graph.Response {
				return d.respond(ctx, &rt, c)
			})
		} else {
			answered = d.respond(ctx, &rt, c)
		}
		if answered.Err != nil {
			d.writeError(w, r, answered.Err)
			return
		}
		balance := answered.Balance
		if balance == nil {
			balance = d.balance(ctx)
		}
		if answered.Link != "" {
			w.Header().Set("Link", answered.Link)
		}
		buffer := bufferPool.Get().(*bytes.Buffer) //nolint:errcheck,forcetypeassert // it holds nothing else
		defer bufferPool.Put(buffer)
		buffer.Reset()
		buffer.WriteString(`{"success":true,"data":`)
		buffer.Write(answered.Body)
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

// respond serves a request. The body is what goes into the envelope.
func (d *handler) respond(ctx context.Context, rt *route, c *call) *graph.Response {
	data, err := rt.call(ctx, c)
	if err != nil {
		return &graph.Response{Err: err}
	}
	if c.accepted != nil {
		data = c.accepted
	}
	body, err := encodeJSON(data)
	return &graph.Response{Body: body, Link: c.link, Balance: c.balance, Err: err, Cacheable: err == nil}
}

// writeError answers with an error and logs what is no refusal.
func (d *handler) writeError(w http.ResponseWriter, r *http.Request, err error) {
	ctx := r.Context()
	if models.CodeOf(err) == models.Internal && ctx.Err() == nil {
		d.logger.ErrorContext(ctx, "request failed", slog.Any("error", err),
			slog.String("path", r.Pattern), slog.String("request_id", auth.RequestFrom(ctx).ID))
	}
	WriteError(w, r, err, d.balance(ctx))
}

// balance is what the caller can spend; nil for an anonymous one. An answer goes
// out without it rather than not at all.
func (d *handler) balance(ctx context.Context) *models.Credits {
	actor, ok := auth.FromContext(ctx)
	if !ok {
		return nil
	}
	return d.cache.Get(ctx, graph.KeyFor(ctx, "REST balance", true), func(ctx context.Context) *graph.Response {
		wallet, err := d.resolver.Viewer().Wallet(ctx, &generated.Viewer{Agent: &models.Agent{ID: actor.AgentID}})
		if err != nil {
			if ctx.Err() == nil {
				d.logger.ErrorContext(ctx, "cannot read a balance", slog.Any("error", err),
					slog.String("request_id", auth.RequestFrom(ctx).ID))
			}
			return &graph.Response{Err: err}
		}
		return &graph.Response{Balance: &wallet.Available, Cacheable: true}
	}).Balance
}

// encodeJSON writes JSON as it is to be read: <, > and & are not escaped.
func encodeJSON(v any) ([]byte, error) {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(v)
	return bytes.TrimSuffix(buffer.Bytes(), []byte("\n")), err
}

// writeJSON sends an answer. It is nobody else's and true only now: no cache keeps
// it.
func writeJSON(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	if auth.RequestFrom(r.Context()).Replayed.Load() {
		h.Set("Idempotency-Replayed", "true")
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // an error means that the client is gone
}

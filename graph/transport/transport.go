package transport

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/handler"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/models"
)

// Options are what the transports need to know. Every limit has a default.
type Options struct {
	// Init checks the payload of connection_init and returns the context that
	// the socket's operations run in; an error closes the socket with 4403.
	Init func(ctx context.Context, payload map[string]any) (context.Context, error)
	// Before is asked before each operation on a socket.
	Before func(ctx context.Context) error
	// Key names the API key in a context, empty for none; see CloseKey.
	Key func(ctx context.Context) string
	// Address is where the request of a context came from.
	Address func(ctx context.Context) string
	// Present turns an error into the one that a client sees.
	Present func(ctx context.Context, err error) *gqlerror.Error
	// Headers adds to the headers of an HTTP answer; it may be nil.
	Headers func(ctx context.Context, h http.Header)
	// CheckOrigin says whether a page of the request's origin may connect.
	CheckOrigin func(r *http.Request) bool
	Logger      *slog.Logger

	MaxBody        int64         // of an HTTP request, in bytes; 1 MiB
	ReadLimit      int64         // of a socket's message, in bytes; 64 KiB
	InitTimeout    time.Duration // until connection_init; 5 s
	PingInterval   time.Duration // 20 s; a peer silent for two and a half is dead
	WriteTimeout   time.Duration // of one frame; 5 s
	MaxOperations  int           // at once on one socket; 50
	MaxConnections int           // in all; 50 000
	MaxPerAddress  int           // 10 000
	MaxPerKey      int           // 1 000
}

func (o *Options) setDefaults() {
	setDefault(&o.MaxBody, 1<<20)
	setDefault(&o.ReadLimit, 64<<10)
	setDefault(&o.InitTimeout, 5*time.Second)
	setDefault(&o.PingInterval, 20*time.Second)
	setDefault(&o.WriteTimeout, 5*time.Second)
	setDefault(&o.MaxOperations, 50)
	setDefault(&o.MaxConnections, 50_000)
	setDefault(&o.MaxPerAddress, 10_000)
	setDefault(&o.MaxPerKey, 1000)
}

func setDefault[T comparable](field *T, standard T) {
	var zero T
	if *field == zero {
		*field = standard
	}
}

// Transports are the transports of one server. They share their connections'
// limits and their end.
type Transports struct {
	options Options
	mu      sync.Mutex
	live    map[*live]struct{}
	byAddr  map[string]int
	byKey   map[string]int
	stopped bool
	group   sync.WaitGroup
}

// New returns transports.
func New(o Options) *Transports {
	o.setDefaults()
	return &Transports{options: o, live: map[*live]struct{}{}, byAddr: map[string]int{}, byKey: map[string]int{}}
}

// Mount adds the transports to a server in the order they are to be asked.
func (t *Transports) Mount(server *handler.Server) {
	server.AddTransport(&webSocket{t})
	server.AddTransport(&eventStream{t})
	server.AddTransport(&plainHTTP{t})
}

// live is one connection that stays open.
type live struct {
	address, key string
	end          func(code int, reason string) // closes it, without waiting
}

// Reasons not to let a connection in.
var (
	errFull    = errors.New("too many connections")
	errStopped = errors.New("the server is stopping")
)

// join counts a connection in; it stays counted until leave.
func (t *Transports) join(l *live) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.stopped:
		return errStopped
	case len(t.live) >= t.options.MaxConnections, t.byAddr[l.address] >= t.options.MaxPerAddress,
		l.key != "" && t.byKey[l.key] >= t.options.MaxPerKey:
		return errFull
	}
	t.live[l] = struct{}{}
	t.byAddr[l.address]++
	if l.key != "" {
		t.byKey[l.key]++
	}
	t.group.Add(1)
	return nil
}

// identify notes the key that a live connection has shown.
func (t *Transports) identify(l *live, key string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if key == l.key {
		return nil
	}
	if key != "" && t.byKey[key] >= t.options.MaxPerKey {
		return errFull
	}
	t.forgetKey(l)
	if l.key = key; key != "" {
		t.byKey[key]++
	}
	return nil
}

func (t *Transports) forgetKey(l *live) {
	if l.key == "" {
		return
	}
	if t.byKey[l.key]--; t.byKey[l.key] == 0 {
		delete(t.byKey, l.key)
	}
}

func (t *Transports) leave(l *live) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.live, l)
	t.forgetKey(l)
	if t.byAddr[l.address]--; t.byAddr[l.address] == 0 {
		delete(t.byAddr, l.address)
	}
	t.group.Done()
}

// Connections returns how many connections stay open now.
func (t *Transports) Connections() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.live)
}

// CloseKey ends every connection that showed the key: sockets with 4401, which
// keeps clients from trying again.
func (t *Transports) CloseKey(key string) {
	for _, l := range t.having(func(l *live) bool { return l.key == key }) {
		l.end(closeUnauthorized, "Unauthorized: the API key was revoked")
	}
}

// Shutdown lets nobody in any more, ends every connection (sockets with 1001)
// and waits until they are gone or ctx ends.
func (t *Transports) Shutdown(ctx context.Context) {
	t.mu.Lock()
	t.stopped = true
	t.mu.Unlock()
	for _, l := range t.having(func(*live) bool { return true }) {
		l.end(closeGoingAway, "the server is stopping")
	}
	gone := make(chan struct{})
	go func() {
		t.group.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-ctx.Done():
	}
}

func (t *Transports) having(wanted func(*live) bool) []*live {
	t.mu.Lock()
	defer t.mu.Unlock()
	var found []*live
	for l := range t.live {
		if wanted(l) {
			found = append(found, l)
		}
	}
	return found
}

// ending is why a subscription was ended by its resolver.
type ending struct {
	mu  sync.Mutex
	err *gqlerror.Error
}

type endingKey struct{}

// StreamError has the client told why the subscription of ctx ends. Its
// resolver calls it before it closes the channel.
func StreamError(ctx context.Context, err *gqlerror.Error) {
	if e, ok := ctx.Value(endingKey{}).(*ending); ok {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.err = err
	}
}

func (e *ending) get() *gqlerror.Error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

// operation is one GraphQL operation that runs to its end.
type operation struct {
	exec    graphql.GraphExecutor
	present func(context.Context, error) *gqlerror.Error
	params  *graphql.RawParams
}

// run executes the operation and hands out each response. The errors it returns
// are those of a request that was not executed or of a stream that broke off;
// there are none when ctx ended.
func (o *operation) run(ctx context.Context, next func(*graphql.Response)) gqlerror.List {
	end := &ending{}
	ctx = context.WithValue(graphql.StartOperationTrace(ctx), endingKey{}, end)
	now := graphql.Now()
	o.params.ReadTime = graphql.TraceTiming{Start: now, End: now}
	opCtx, errs := o.exec.CreateOperationContext(ctx, o.params)
	if len(errs) > 0 {
		return o.exec.DispatchError(graphql.WithOperationContext(ctx, opCtx), errs).Errors
	}
	responses, ctx := o.exec.DispatchOperation(ctx, opCtx)
	for {
		response := responses(ctx)
		if response == nil {
			break
		}
		if response.Data == nil && len(response.Errors) > 0 {
			return response.Errors
		}
		next(response)
	}
	if err := end.get(); err != nil && ctx.Err() == nil {
		return gqlerror.List{err}
	}
	return nil
}

// safely runs the operation and makes a panic an INTERNAL error.
func (o *operation) safely(ctx context.Context, logger *slog.Logger, next func(*graphql.Response)) (errs gqlerror.List) {
	defer func() {
		if p := recover(); p != nil {
			logger.ErrorContext(ctx, "panic in an operation", slog.Any("panic", p))
			errs = gqlerror.List{o.present(ctx, models.Errorf(models.Internal, "internal error"))}
		}
	}()
	return o.run(ctx, next)
}

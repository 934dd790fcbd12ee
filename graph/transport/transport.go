package transport

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/99designs/gqlgen/graphql/handler"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// Options configure the transports. Every limit has a default.
type Options struct {
	// Init validates the payload of connection_init and returns the context for the
	// socket's operations. If it fails, the socket is closed with 4403, or with 1011
	// for an INTERNAL error.
	Init func(ctx context.Context, payload map[string]any) (context.Context, error)
	// BeforeOperation is called before each operation on a socket; an error rejects
	// the operation. It may be nil.
	BeforeOperation func(ctx context.Context) error
	// Key returns the API key of a context, or "". See CloseKey.
	Key func(ctx context.Context) string
	// Address returns the client address of a context.
	Address func(ctx context.Context) string
	// PresentError converts an error to the one sent to the client.
	PresentError func(ctx context.Context, err error) *gqlerror.Error
	// AddHeaders adds HTTP response headers. It may be nil.
	AddHeaders func(ctx context.Context, h http.Header)
	// Cache holds responses to HTTP requests. It may be nil.
	Cache ResponseCache
	// CheckOrigin reports whether a WebSocket handshake from the request's origin is
	// allowed.
	CheckOrigin func(r *http.Request) bool
	Logger      *slog.Logger

	MaxBody        int64         // HTTP request body in bytes; default 1 MiB
	ReadLimit      int64         // WebSocket message in bytes; default 64 KiB
	InitTimeout    time.Duration // until connection_init; default 5 s
	PingInterval   time.Duration // default 20 s; a socket times out after 2.5 intervals, an event stream sends two heartbeats per interval
	WriteTimeout   time.Duration // per chunk of about 16 KiB; default 5 s
	AnswerTimeout  time.Duration // for running mutations when their key is revoked; default 3 s, so that a connection is closed within 5 s
	MaxOperations  int           // concurrent operations per socket; default 50
	MaxConnections int           // open connections; default 50 000
	MaxPerAddress  int           // open connections per client address; default 10 000
	MaxPerKey      int           // open connections per API key; default 1 000
}

// ResponseCache is a cache of query responses.
type ResponseCache interface {
	// Lookup returns the cached response body for a request, or nil on a miss.
	Lookup(ctx context.Context, hash RequestHash) []byte
	// Store records that a query was executed in ctx without an error.
	Store(ctx context.Context, hash RequestHash)
}

func (o *Options) setDefaults() {
	setDefault(&o.MaxBody, 1<<20)
	setDefault(&o.ReadLimit, 64<<10)
	setDefault(&o.InitTimeout, 5*time.Second)
	setDefault(&o.PingInterval, 20*time.Second)
	setDefault(&o.WriteTimeout, 5*time.Second)
	setDefault(&o.AnswerTimeout, 3*time.Second)
	setDefault(&o.MaxOperations, 50)
	setDefault(&o.MaxConnections, 50_000)
	setDefault(&o.MaxPerAddress, 10_000)
	setDefault(&o.MaxPerKey, 1000)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Transports are the HTTP, WebSocket and server-sent events transports of one server.
// They share connection limits and shutdown.
type Transports struct {
	options     Options
	mu          sync.Mutex
	connections map[*connection]struct{}
	byAddr      map[string]int
	byKey       map[string]int
	revokedKeys []string
	stopped     bool
	wg          sync.WaitGroup
	cutOff      atomic.Int64

	started          time.Time
	heartbeatTimer   *time.Timer // see checkConnections
	heartbeatRunning bool
}

// New returns transports with the given options.
func New(o Options) *Transports {
	o.setDefaults()
	return &Transports{
		options: o, connections: map[*connection]struct{}{}, byAddr: map[string]int{}, byKey: map[string]int{},
		started: time.Now(), //nolint:forbidigo // see now
	}
}

// Mount adds the transports to a server. Their order matters: the first one that
// supports a request serves it.
func (t *Transports) Mount(server *handler.Server) {
	server.AddTransport(&webSocket{t})
	server.AddTransport(&plainHTTP{t})
}

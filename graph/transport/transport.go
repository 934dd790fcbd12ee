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
	// Memory knows requests over HTTP that were answered before; it may be nil.
	Memory Memory
	// CheckOrigin says whether a page of the request's origin may connect.
	CheckOrigin func(r *http.Request) bool
	Logger      *slog.Logger

	MaxBody        int64         // of an HTTP request, in bytes; 1 MiB
	ReadLimit      int64         // of a socket's message, in bytes; 64 KiB
	InitTimeout    time.Duration // until connection_init; 5 s
	PingInterval   time.Duration // 20 s; a peer silent for two and a half is dead, event streams show life twice in one
	WriteTimeout   time.Duration // of some 16 KiB; 5 s
	MaxOperations  int           // at once on one socket; 50
	MaxConnections int           // in all; 50 000
	MaxPerAddress  int           // 10 000
	MaxPerKey      int           // 1 000
}

// Memory is finished answers to queries.
type Memory interface {
	// Recall returns the body that a request is answered with, nil when it must be
	// executed.
	Recall(ctx context.Context, asked Asked) []byte
	// Note is told of a query that was executed without an error, and in which
	// context.
	Note(ctx context.Context, asked Asked)
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
	revoked []string
	stopped bool
	group   sync.WaitGroup
	cutOff  atomic.Int64

	began   time.Time
	heart   *time.Timer // see beat
	beating bool
}

// New returns transports.
func New(o Options) *Transports {
	o.setDefaults()
	return &Transports{
		options: o, live: map[*live]struct{}{}, byAddr: map[string]int{}, byKey: map[string]int{},
		began: time.Now(), //nolint:forbidigo // see now
	}
}

// Mount adds the transports to a server in the order they are to be asked.
func (t *Transports) Mount(server *handler.Server) {
	server.AddTransport(&webSocket{t})
	server.AddTransport(&eventStream{t})
	server.AddTransport(&plainHTTP{t})
}

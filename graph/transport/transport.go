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
	// BeforeOperation is asked before each operation on a socket.
	BeforeOperation func(ctx context.Context) error
	// Key names the API key in a context, empty for none; see CloseKey.
	Key func(ctx context.Context) string
	// Address is where the request of a context came from.
	Address func(ctx context.Context) string
	// PresentError turns an error into the one that a client sees.
	PresentError func(ctx context.Context, err error) *gqlerror.Error
	// AddHeaders adds to the headers of an HTTP answer; it may be nil.
	AddHeaders func(ctx context.Context, h http.Header)
	// ResponseCache knows requests over HTTP that were answered before; it may be nil.
	Cache ResponseCache
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

// ResponseCache is finished answers to queries.
type ResponseCache interface {
	// Lookup returns the body that a request is answered with, nil when it must be
	// executed.
	Lookup(ctx context.Context, asked RequestHash) []byte
	// Store is told of a query that was executed without an error, and in which
	// context.
	Store(ctx context.Context, asked RequestHash)
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
	heartbeatTimer   *time.Timer // see beat
	heartbeatRunning bool
}

// New returns transports.
func New(o Options) *Transports {
	o.setDefaults()
	return &Transports{
		options: o, connections: map[*connection]struct{}{}, byAddr: map[string]int{}, byKey: map[string]int{},
		started: time.Now(), //nolint:forbidigo // see now
	}
}

// Mount adds the transports to a server in the order they are to be asked.
func (t *Transports) Mount(server *handler.Server) {
	server.AddTransport(&webSocket{t})
	server.AddTransport(&eventStream{t})
	server.AddTransport(&plainHTTP{t})
}

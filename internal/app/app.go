package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"agentmarket.space/server/compat"
	"agentmarket.space/server/graph"
	"agentmarket.space/server/graph/cache"
	"agentmarket.space/server/internal/audit"
	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/config"
	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/internal/events"
	"agentmarket.space/server/internal/executor"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/tracing"
	"agentmarket.space/server/internal/webhooks"
	"agentmarket.space/server/models"
)

const (
	sweepInterval   = time.Second
	shutdownTimeout = 15 * time.Second
	// maxEventLag is the event lag above which the server is not ready.
	maxEventLag = 5 * time.Second
)

// App is a configured server.
type App struct {
	// Handler serves all HTTP requests.
	Handler http.Handler

	config         config.Config
	version        string
	logger         *slog.Logger
	now            func() time.Time
	wallClock      func() time.Time // for timestamps that other systems check; nil if now is the system time
	development    Development      // zero for a production server
	db             *database.DB
	events         *events.Log
	disconnectNATS func()
	keys           *auth.Keys
	audit          *audit.Log
	market         *market.Market
	webhooks       *webhooks.Webhooks
	graph          *graph.Server
	limits         *rateLimiter
	origins        *origins
	metrics        *metrics
	tracer         *tracing.Tracer // nil if tracing is off
	stopping       chan struct{}   // closed when the shutdown starts
	stopOnce       sync.Once
}

// New opens the database and wires the server. The caller must call Close. New reads
// all other files first, so that it does not touch the database if one is invalid.
func New(ctx context.Context, c config.Config, version string, logger *slog.Logger) (*App, error) {
	return NewDevelopment(ctx, c, version, logger, Development{})
}

// NewDevelopment is like [New] for a development sandbox, whose clock can be
// advanced. Webhooks are still signed with the system time, because receivers
// compare it with theirs.
func NewDevelopment(ctx context.Context, c config.Config, version string, logger *slog.Logger, d Development) (*App, error) {
	operatorKey, err := readOperatorKey(c)
	if err != nil {
		return nil, err
	}
	trusted, err := readTrustedDocuments(c)
	if err != nil {
		return nil, err
	}
	db, err := database.Open(ctx, c.Database, logger)
	if err != nil {
		return nil, err
	}
	cipher, err := openCipher(ctx, c, db, logger)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	a := &App{
		config: c, version: version, logger: logger, now: time.Now, development: d, db: db, disconnectNATS: func() {}, metrics: newMetrics(), stopping: make(chan struct{}),
		origins: newOrigins(c.PublicURL, c.AllowOrigins),
	}
	if d.Clock != nil {
		a.now, a.wallClock = d.Clock.Now, time.Now
	}
	if err := a.wire(ctx, cipher, trusted, operatorKey); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// wire creates the components and connects them.
func (a *App) wire(ctx context.Context, cipher *auth.Cipher, trusted *graph.TrustedDocuments, operatorKey string) error {
	keys, err := auth.NewKeys(a.db, a.now, auth.KeyHooks{
		OnRevoked: func(hash auth.KeyHash) { a.graph.CloseKey(hash) },
		OnUnknown: func(ctx context.Context) {
			a.metrics.invalidKeys.Inc()
			a.audit.CountRejection(ctx, models.AuditKeyRefused, models.Unauthenticated)
		},
	})
	if err != nil {
		return err
	}
	a.keys = keys
	if err := a.openTracer(ctx); err != nil {
		return err
	}
	a.db.ObserveCommits(a.metrics.observeCommit)
	if a.events, err = events.Open(ctx, a.db, a.logger); err != nil {
		return fmt.Errorf("open the event log: %w", err)
	}
	a.events.OnDispatch(func(lag time.Duration) { a.metrics.eventLag.Observe(lag.Seconds()) })
	if a.config.NATSURL != "" {
		disconnect, err := a.events.ConnectNATS(a.config.NATSURL)
		if err != nil {
			return fmt.Errorf("nats-url: %w", err)
		}
		a.disconnectNATS = disconnect
	}
	if a.limits, err = newRateLimiter(a.config.RateLimits == "on", a.db.IsShared(), a.now); err != nil {
		return err
	}
	a.limits.onLimited = func(hasKey bool) { a.metrics.rateLimited[hasKey].Inc() }
	client := outbound.New(outbound.Options{
		AllowNetworks: a.config.AllowNetworks, AllowPorts: a.config.AllowPorts, UserAgent: "AgentMarket/" + a.version, RootCAs: a.development.RootCAs,
	})
	a.webhooks = webhooks.New(webhooks.Options{
		DB: a.db, Events: a.events, Client: client, Cipher: cipher, MarketplaceURL: a.config.MarketplaceURL, Timeout: a.config.WebhookTimeout,
		Retries: a.config.WebhookRetries, Retention: a.config.DeliveryRetention(), Now: a.now, WallClock: a.wallClock, Logger: a.logger,
		OnAttempt: a.metrics.observeAttempt, Tracer: a.tracer,
	})
	runner := &agentRunner{webhooks: a.webhooks, metrics: a.metrics, executor: executor.New(executor.Options{
		Outbound: client, Timeout: a.config.EndpointTimeout, MarketplaceURL: a.config.MarketplaceURL, Now: time.Now,
		Claude: executor.ClaudeOptions{
			APIKey: a.config.AnthropicAPIKey, BaseURL: a.config.AnthropicBaseURL, Model: a.config.ClaudeModel, MaxTokens: a.config.ClaudeMaxTokens,
		},
	})}
	a.audit = audit.New(a.db, a.now)
	a.market = market.New(market.Deps{
		DB: a.db, Events: a.events, Keys: keys, Cipher: cipher, Audit: a.audit, Webhooks: a.webhooks, Runner: runner,
		CheckURL: client.CheckURL, CheckHost: client.CheckHost, Now: a.now, Logger: a.logger,
	}, a.marketSettings())
	resolver := &graph.Resolver{Market: a.market, Events: a.events, Webhooks: a.webhooks, PublicURL: a.config.PublicURL, Version: a.version}
	responseCache, err := cache.New(cache.Options{DB: a.db, Now: a.now, NextDeadline: a.market.NextDeadline, Meter: a.metrics})
	if err != nil {
		return err
	}
	a.graph, err = graph.NewServer(resolver, graph.ServerOptions{
		Introspection: a.config.Introspection == "on", CheckOrigin: a.origins.acceptsSocket, Keys: keys, Limit: a.limits.allowOperation, Logger: a.logger,
		Cache: responseCache, TrustedDocuments: trusted, Meter: a.metrics, Tracer: a.tracer,
	})
	if err != nil {
		return err
	}
	a.metrics.registerCollectors(a, responseCache, a.version)
	rest := compat.New(resolver, compat.Options{Version: a.version, PublicURL: a.config.PublicURL, Logger: a.logger, Cache: responseCache})
	pageRoutes, err := a.pageRoutes()
	if err != nil {
		return err
	}
	a.Handler = a.routes(rest, pageRoutes, keys, operatorKey)
	return nil
}

// openTracer starts tracing if a collector is configured.
func (a *App) openTracer(ctx context.Context) (err error) {
	if a.config.OTLPEndpoint == "" {
		return nil
	}
	a.tracer, err = tracing.Open(ctx, tracing.Options{Endpoint: a.config.OTLPEndpoint, Version: a.version, Instance: a.db.ReplicaID(), Logger: a.logger})
	if err != nil {
		return fmt.Errorf("otel-exporter-otlp-endpoint: %w", err)
	}
	return nil
}

// readTrustedDocuments reads the configured file. It returns nil if there is none,
// which accepts any document.
func readTrustedDocuments(c config.Config) (trusted *graph.TrustedDocuments, err error) {
	if c.TrustedDocuments == "" {
		return trusted, nil
	}
	if trusted, err = graph.ReadTrustedDocuments(c.TrustedDocuments); err != nil {
		return nil, fmt.Errorf("trusted-documents: %w", err)
	}
	return trusted, nil
}

// marketSettings derives the settings of the market from the configuration.
func (a *App) marketSettings() market.Settings {
	settings := market.Settings{
		StartingCredits: a.config.StartingCredits, MinBudget: a.config.MinBudget, OpenFor: a.config.OpenFor,
		Lease: a.config.Lease, ExecuteTimeout: a.config.EndpointTimeout, ExecutionDeadline: a.config.ExecutionDeadline,
		EventRetention: a.config.KeepEvents, AuditRetention: a.config.KeepAudit,
		Spending: market.SpendingLimits{
			MaxTokens: a.config.ClaudeMaxTokens, MaxConcurrent: a.config.ClaudeAtOnce, MaxConcurrentPerAgent: a.config.ClaudeAtOncePerAgent,
			TokensPerHour: a.config.ClaudeTokensPerHour, TokensPerHourPerAgent: a.config.ClaudeTokensPerHourPerAgent,
		},
	}
	if a.config.RateLimits == "on" {
		settings.RegistrationInterval, settings.RegistrationBurst = registrationInterval, registrationBurst
	}
	return settings
}

// Run serves on the listener until ctx is done. Then /readyz returns 503 while Run
// keeps serving for the configured drain time. After that it stops: it accepts no new
// requests, waits for the running mutations of WebSockets, closes the sockets with 1001,
// and waits up to 15 s for webhook attempts and executions.
func (a *App) Run(ctx context.Context, listener net.Listener) error {
	if err := a.webhooks.Start(ctx); err != nil {
		return fmt.Errorf("start webhooks: %w", err)
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var group sync.WaitGroup
	if a.db.IsShared() {
		after := a.events.Head() // the key cache is still empty
		group.Go(func() { a.followRevocations(background, after) })
		if a.config.RateLimits == "on" {
			group.Go(func() { a.limits.syncWithReplicas(background, a.db.NewUsageSync(), a.logger) })
		}
	}
	group.Go(func() { a.events.Follow(background) })
	group.Go(func() { a.market.RunMaintenance(background, sweepInterval) })
	group.Go(func() { a.stopBackgroundOnFileLoss(background, stop) })
	server := &http.Server{
		Handler: a.Handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 60 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(a.logger.Handler(), slog.LevelDebug),
	}
	watchFraming(server)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(framingListener{listener}) }()
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	err = errors.Join(err, a.shutdown(context.WithoutCancel(ctx), server))
	stop()
	group.Wait()
	return err
}

// stopBackgroundOnFileLoss stops the background work when the SQLite file was removed
// or replaced, because it would only log errors. The server keeps answering requests.
func (a *App) stopBackgroundOnFileLoss(ctx context.Context, stop context.CancelFunc) {
	select {
	case <-ctx.Done():
		return
	case <-a.db.FileLost():
	}
	stop()
	_ = a.webhooks.Stop(ctx) // its jobs run again after a restart
}

// followRevocations removes keys from the cache that other replicas have revoked,
// until ctx is done.
func (a *App) followRevocations(ctx context.Context, after int64) {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		err := a.dropRevokedKeys(ctx, &after)
		if models.CodeOf(err) == models.CursorExpired { // the last revocation is older than the retention
			head := a.events.Head()
			if err = a.keys.InvalidateRevoked(ctx, ""); err == nil {
				after = head
			}
		}
		if err != nil && ctx.Err() == nil {
			a.logger.ErrorContext(ctx, "following key revocations failed, retrying", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// dropRevokedKeys invalidates keys for each key.revoked event after a cursor, and
// moves the cursor forward, until ctx is done or an error occurs.
func (a *App) dropRevokedKeys(ctx context.Context, after *int64) error {
	woken := make(chan struct{}, 1)
	isRevocation := func(e *models.Event) bool { return e.Kind == models.KeyRevoked }
	feed := a.events.OpenFeed(events.Interest{Topics: []events.Topic{events.AllEventsTopic()}, Filter: isRevocation}, new(*after),
		func(*models.Event) { woken <- struct{}{} })
	defer feed.Close()
	for ctx.Err() == nil {
		event, err := feed.Next(ctx)
		if event != nil {
			err = a.keys.InvalidateRevoked(ctx, *event.AgentID)
		}
		if err != nil {
			return err
		}
		if event != nil {
			*after = event.Seq
			continue
		}
		select {
		case <-woken:
		case <-ctx.Done():
		}
	}
	return nil
}

// shutdown stops the components in an order that loses no work.
func (a *App) shutdown(ctx context.Context, server *http.Server) error {
	a.stopOnce.Do(func() { close(a.stopping) })
	<-time.After(a.config.Drain)
	ctx, cancel := context.WithTimeout(ctx, shutdownTimeout)
	defer cancel()
	a.market.StopWaiting()
	var sockets sync.WaitGroup
	sockets.Go(func() { a.graph.Shutdown(ctx) }) // waits for mutations, while server accepts no new requests
	err := server.Shutdown(ctx)
	sockets.Wait()
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close()
	}
	a.market.WaitExecutions(ctx)
	return errors.Join(err, a.webhooks.Stop(ctx), a.audit.Flush(ctx))
}

// Close sends the last spans and closes the database. Run must have returned.
func (a *App) Close() error {
	a.disconnectNATS()
	if err := a.tracer.Close(context.Background()); err != nil { //nolint:forbidigo // Close has its own timeout
		a.logger.Warn("sending traces failed", slog.Any("error", err))
	}
	return a.db.Close()
}

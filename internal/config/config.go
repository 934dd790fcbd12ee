// Package config defines and validates the settings of the server. A flag takes
// precedence over an environment variable (AGENTMARKET_*), which takes precedence
// over the configuration file and the default. The package opens no file except
// the configuration file.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"agentmarket.space/server/models"
)

// secretTag is the struct tag of settings that are secret.
const secretTag = "secret"

// Config is the configuration of the server. Durations are written like 30s or 24h.
type Config struct {
	Addr                        string          `default:"127.0.0.1:8080" env:"AGENTMARKET_ADDR"            help:"Address to listen on, as host:port. Without a host, on all addresses. Port 0 chooses a free port."`
	Database                    string          `default:"agentmarket.db" env:"AGENTMARKET_DATABASE"        help:"Path of the SQLite database, created if missing, or a postgres:// address."`
	NATSURL                     string          `                         env:"AGENTMARKET_NATS_URL"        help:"Address of a NATS server that replicas use to notify each other of new events. Without one they use PostgreSQL." placeholder:"URL" name:"nats-url"`
	PublicURL                   string          `                         env:"AGENTMARKET_PUBLIC_URL"      help:"Public URL of the server, which may have a path. Defaults to http:// and the listen address, or 127.0.0.1 if that has no host." placeholder:"URL"`
	MarketplaceURL              string          `                         env:"AGENTMARKET_MARKETPLACE_URL" help:"URL sent in webhooks as marketplace_url. Defaults to the public URL." placeholder:"URL"`
	SecretKey                   string          `                         env:"AGENTMARKET_SECRET_KEY"      help:"Key that encrypts secrets in the database, at least 16 characters. If empty, a key file is created next to the SQLite database. Required for PostgreSQL." placeholder:"KEY" secret:""`
	OldSecretKey                string          `                         env:"AGENTMARKET_OLD_SECRET_KEY"  help:"Previous secret key, also accepted for decryption while secrets are re-encrypted." placeholder:"KEY" secret:""`
	OperatorKey                 string          `                         env:"AGENTMARKET_OPERATOR_KEY"    help:"Operator API key, at least 32 characters, for /metrics and /operator. Without one, /metrics is public and /operator is disabled." placeholder:"KEY" secret:""`
	OperatorKeyFile             string          `                         env:"AGENTMARKET_OPERATOR_KEY_FILE" help:"File that contains the operator API key. Use instead of --operator-key." placeholder:"FILE" name:"operator-key-file"`
	AllowNetworks               []netip.Prefix  `                         env:"AGENTMARKET_ALLOW_NETWORKS"  help:"Private networks that webhooks and endpoints may be in, like 127.0.0.0/8,10.0.0.0/8." placeholder:"NETWORK"`
	AllowPorts                  []uint16        `default:"443"            env:"AGENTMARKET_ALLOW_PORTS"     help:"Ports that webhooks and endpoints may use on public addresses."`
	AllowOrigins                []string        `                         env:"AGENTMARKET_ALLOW_ORIGINS"   help:"Origins of web pages on other hosts that may call the server (CORS), like https://dashboard.example.com. The origin of the public URL is always allowed." placeholder:"ORIGIN"`
	TrustProxies                []netip.Prefix  `                         env:"AGENTMARKET_TRUST_PROXIES"   help:"Networks of reverse proxies whose X-Forwarded-For header is trusted." placeholder:"NETWORK"`
	RateLimits                  string          `default:"on"             env:"AGENTMARKET_RATE_LIMITS"     help:"Rate limits by API key and by IP address: on or off." enum:"on,off"`
	Introspection               string          `default:"on"             env:"AGENTMARKET_INTROSPECTION"   help:"GraphQL introspection and the public schema file: on or off." enum:"on,off"`
	TrustedDocuments            string          `                         env:"AGENTMARKET_TRUSTED_DOCUMENTS" help:"JSON file that maps document ids to GraphQL documents. If set, the server accepts only these documents." placeholder:"FILE" name:"trusted-documents"`
	EndpointTimeout             time.Duration   `default:"60s"            env:"AGENTMARKET_ENDPOINT_TIMEOUT" help:"Timeout for an endpoint call, and for a caller that waits for the result of a hire." name:"endpoint-timeout"`
	ExecutionDeadline           time.Duration   `default:"1h"             env:"AGENTMARKET_EXECUTION_DEADLINE" help:"Deadline of asynchronous hires: of endpoints that answered 202, and of startExecution. The budget is refunded when it passes." name:"execution-deadline"`
	WebhookTimeout              time.Duration   `default:"15s"            env:"AGENTMARKET_WEBHOOK_TIMEOUT" help:"Timeout of one webhook attempt." name:"webhook-timeout"`
	WebhookRetries              []time.Duration `default:"5s,5m,30m,2h,5h,10h,10h" env:"AGENTMARKET_WEBHOOK_RETRIES" help:"Delays between the attempts of a webhook delivery."`
	Lease                       time.Duration   `default:"24h"            env:"AGENTMARKET_LEASE"           help:"Time a worker has to complete an accepted task, unless the task sets its own."`
	OpenFor                     time.Duration   `default:"168h"           env:"AGENTMARKET_OPEN_FOR"        help:"Time after which an open task expires, unless the task sets its own."`
	KeepEvents                  time.Duration   `default:"720h"           env:"AGENTMARKET_KEEP_EVENTS"     help:"Retention of events, which subscribers can replay with a cursor. At least 24h and longer than all webhook retries; 0s keeps them forever."`
	KeepDeliveries              *time.Duration  `                         env:"AGENTMARKET_KEEP_DELIVERIES" help:"Retention of webhook deliveries and their attempts. Longer than all webhook retries, but not longer than keep-events; 0s keeps them forever. Defaults to keep-events, at most 720h." placeholder:"DURATION"`
	KeepAudit                   time.Duration   `default:"2160h"          env:"AGENTMARKET_KEEP_AUDIT"      help:"Retention of the audit log, at least 24h; 0s keeps it forever."`
	MinBudget                   models.Credits  `default:"2"              env:"AGENTMARKET_MIN_BUDGET"      help:"Minimum budget of a task, in credits."`
	StartingCredits             models.Credits  `default:"100"            env:"AGENTMARKET_STARTING_CREDITS" help:"Credits granted to a new agent." name:"starting-credits"`
	Drain                       time.Duration   `default:"0s"             env:"AGENTMARKET_DRAIN"           help:"Time to keep serving after SIGTERM while /readyz returns 503, so that load balancers stop sending requests."`
	ClaudeModel                 string          `default:"claude-sonnet-4-5" env:"AGENTMARKET_CLAUDE_MODEL" help:"Claude model that runs system prompts."`
	ClaudeMaxTokens             int64           `default:"4096"           env:"AGENTMARKET_CLAUDE_MAX_TOKENS" help:"Maximum output tokens of one model response." name:"claude-max-tokens"`
	ClaudeAtOnce                int64           `default:"32"             env:"AGENTMARKET_CLAUDE_AT_ONCE"  help:"Maximum number of concurrent hires that use the model; 0 for no limit." name:"claude-at-once"`
	ClaudeAtOncePerAgent        int64           `default:"8"              env:"AGENTMARKET_CLAUDE_AT_ONCE_PER_AGENT" help:"Maximum number of concurrent hires that use the model, for each hiring agent; 0 for no limit." name:"claude-at-once-per-agent"`
	ClaudeTokensPerHour         int64           `default:"5000000"        env:"AGENTMARKET_CLAUDE_TOKENS_PER_HOUR" help:"Maximum input and output tokens of the model per hour, for all hires; 0 for no limit." name:"claude-tokens-per-hour"`
	ClaudeTokensPerHourPerAgent int64           `default:"500000"         env:"AGENTMARKET_CLAUDE_TOKENS_PER_HOUR_PER_AGENT" help:"Maximum input and output tokens of the model per hour, for each hiring agent; 0 for no limit." name:"claude-tokens-per-hour-per-agent"`
	OTLPEndpoint                string          `                         env:"OTEL_EXPORTER_OTLP_ENDPOINT" help:"Address of an OpenTelemetry collector that receives traces over OTLP/HTTP. Without one, tracing is off." placeholder:"URL" name:"otel-exporter-otlp-endpoint"`
	AnthropicAPIKey             string          `                         env:"ANTHROPIC_API_KEY"           help:"API key for the Claude API. Without one, system prompts are disabled." placeholder:"KEY" name:"anthropic-api-key" secret:""`
	AnthropicBaseURL            string          `                         env:"ANTHROPIC_BASE_URL"          help:"Base URL of the Claude API." placeholder:"URL" name:"anthropic-base-url"`

	// GiveUpSecrets starts the server although its key cannot decrypt the secrets in the
	// database. It is not a setting: an operator says it for one start.
	GiveUpSecrets bool `kong:"-"`
}

// MinOperatorKeyLength is the minimum length of the operator key in characters. 32
// hex digits hold 128 bits.
const MinOperatorKeyLength = 32

// minSecretKeyLength is the minimum length of a secret key in characters.
const minSecretKeyLength = 16

// minEventRetention is the minimum retention of events. It equals the lifetime of an
// Idempotency-Key, so that a client can resume after a day. A database trigger
// rejects the deletion of younger events.
const minEventRetention = 24 * time.Hour

// minAuditRetention is the minimum retention of the audit log. A database trigger
// rejects the deletion of younger entries. The default is the three months of
// immediately available audit logs that PCI DSS 4.0, requirement 10.5.1, demands.
const minAuditRetention = 24 * time.Hour

// maxDuration is the maximum of all durations, a hundred years, so that their sums do
// not overflow.
const maxDuration = 876000 * time.Hour

// defaultRetention is the default retention of events and deliveries.
const defaultRetention = 720 * time.Hour

// Validate returns an error with one line for each invalid setting.
func (c *Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	checkSetting := func(name string, err error) {
		check(err == nil, "%s: %w", name, err)
	}
	checkSetting("addr", checkAddr(c.Addr))
	check(c.Database != "", "database: must not be empty")
	check(c.MinBudget >= models.MinBudget && c.MinBudget <= models.MaxBudget,
		"min-budget: must be from %d to %d", models.MinBudget, models.MaxBudget)
	check(c.StartingCredits >= 0 && c.StartingCredits <= models.MaxBudget, "starting-credits: must be from 0 to %d", models.MaxBudget)
	check(c.Lease >= time.Minute, "lease: must be at least 1m")
	check(c.OpenFor >= time.Minute, "open-for: must be at least 1m")
	retries := c.maxRetryDuration()
	check(c.KeepEvents == 0 || c.KeepEvents >= minEventRetention && c.KeepEvents > retries,
		"keep-events: must be 0s, or at least %s and more than %s, the total time of webhook retries", minEventRetention, retries)
	if c.KeepDeliveries != nil {
		keep := *c.KeepDeliveries
		check(keep == 0 || keep > retries, "keep-deliveries: must be 0s, or more than %s, the total time of webhook retries", retries)
		check(c.KeepEvents == 0 || keep > 0 && keep <= c.KeepEvents,
			"keep-deliveries: must not be longer than keep-events")
	}
	check(c.KeepAudit == 0 || c.KeepAudit >= minAuditRetention, "keep-audit: must be 0s or at least %s", minAuditRetention)
	check(c.EndpointTimeout > 0, "endpoint-timeout: must be more than 0")
	check(c.ExecutionDeadline > c.EndpointTimeout, "execution-deadline: must be longer than endpoint-timeout")
	check(min(c.ClaudeAtOnce, c.ClaudeAtOncePerAgent, c.ClaudeTokensPerHour, c.ClaudeTokensPerHourPerAgent) >= 0, "claude-at-once and claude-tokens-per-hour: must not be negative")
	check(c.WebhookTimeout > 0, "webhook-timeout: must be more than 0")
	check(c.SecretKey != "" || !strings.Contains(c.Database, "://"), "secret-key: must be set for PostgreSQL, to the same key on every replica")
	check(c.NATSURL == "" || strings.Contains(c.Database, "://"), "nats-url: requires a PostgreSQL database")
	check(isNATSURL(c.NATSURL), "nats-url: must be one or more comma-separated addresses like nats://host:4222")
	check(c.Drain >= 0, "drain: must not be negative")
	check(c.OldSecretKey == "" || c.SecretKey != "", "old-secret-key: requires secret-key")
	errs = append(errs, CheckSecretKeys(c.SecretKey, c.OldSecretKey))
	check(c.OperatorKey == "" || len(c.OperatorKey) >= MinOperatorKeyLength, "operator-key: must have at least %d characters", MinOperatorKeyLength)
	check(c.OperatorKey == "" || c.OperatorKeyFile == "", "operator-key-file: must not be set together with operator-key")
	check(!slices.Contains(c.AllowPorts, 0), "allow-ports: must be from 1 to 65535")
	check(!slices.ContainsFunc(c.WebhookRetries, func(delay time.Duration) bool { return delay < 0 }), "webhook-retries: must not be negative")
	longest := slices.Max(append([]time.Duration{
		c.Lease, c.OpenFor, c.KeepEvents, c.KeepAudit, c.EndpointTimeout, c.ExecutionDeadline, c.WebhookTimeout, c.Drain,
	}, c.WebhookRetries...))
	check(longest <= maxDuration, "a duration of %s is too long: durations must be at most %s", longest, maxDuration)
	check(c.ClaudeMaxTokens > 0, "claude-max-tokens: must be more than 0")
	check(c.ClaudeModel != "", "claude-model: must not be empty")
	checkSetting("allow-networks", checkNetworks(c.AllowNetworks))
	checkSetting("trust-proxies", checkNetworks(c.TrustProxies))
	errs = append(errs, c.checkURLs())
	return errors.Join(errs...)
}

// checkURLs returns an error with one line for each invalid URL or origin.
func (c *Config) checkURLs() error {
	var errs []error
	check := func(name string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	for _, origin := range c.AllowOrigins {
		if _, err := NormalizeOrigin(origin); err != nil {
			check("allow-origins", fmt.Errorf("%w, not %q", err, maskCredentials(origin)))
		}
	}
	if c.PublicURL != "" {
		_, err := normalizeBaseURL(c.PublicURL)
		check("public-url", err)
	}
	check("marketplace-url", checkServiceURL(c.MarketplaceURL, "https://example.com"))
	check("otel-exporter-otlp-endpoint", checkServiceURL(c.OTLPEndpoint, "http://collector:4318"))
	check("anthropic-base-url", checkServiceURL(c.AnthropicBaseURL, "https://api.anthropic.com"))
	return errors.Join(errs...)
}

// CheckSecretKeys returns an error for each key that is set and too short.
func CheckSecretKeys(key, old string) error {
	var errs []error
	for _, setting := range []struct{ name, key string }{{"secret-key", key}, {"old-secret-key", old}} {
		if setting.key != "" && len(setting.key) < minSecretKeyLength {
			errs = append(errs, fmt.Errorf("%s: must have at least %d characters", setting.name, minSecretKeyLength))
		}
	}
	return errors.Join(errs...)
}

// Secrets returns the values of all secret settings.
func (c *Config) Secrets() (all []string) {
	for field, value := range reflect.ValueOf(c).Elem().Fields() {
		if _, secret := field.Tag.Lookup(secretTag); secret {
			all = append(all, value.String())
		}
	}
	return all
}

// maxRetryDuration returns the longest time from the first to the last attempt of a
// delivery. Jitter extends each delay by up to 20 percent. A receiver can extend
// it further with Retry-After.
func (c *Config) maxRetryDuration() (total time.Duration) {
	for _, pause := range c.WebhookRetries {
		total += pause + pause/5
	}
	return total
}

// isNATSURL reports whether text is empty or a list of NATS addresses.
func isNATSURL(text string) bool {
	for server := range strings.SplitSeq(text, ",") {
		server = strings.TrimSpace(server)
		if !strings.Contains(server, "://") {
			server = "nats://" + server
		}
		u, err := url.Parse(server)
		if err != nil || u.Hostname() == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			return text == ""
		}
	}
	return true
}

// DeliveryRetention returns the retention of deliveries, 0 for no limit.
func (c *Config) DeliveryRetention() time.Duration {
	switch {
	case c.KeepDeliveries != nil:
		return *c.KeepDeliveries
	case c.KeepEvents == 0:
		return defaultRetention
	default:
		return min(defaultRetention, c.KeepEvents)
	}
}

// Complete fills in the settings that derive from other settings and from the
// address of the listener. The settings must be valid.
func (c *Config) Complete(listener net.Addr) {
	if strings.HasSuffix(c.Addr, ":0") {
		c.Addr = listener.String() // the port that the system chose
	}
	if base, err := BaseURL(c.PublicURL, c.Addr); err == nil {
		c.PublicURL = base
	}
	c.MarketplaceURL = cmp.Or(c.MarketplaceURL, c.PublicURL)
}

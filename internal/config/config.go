// Package config holds the settings of the server in one struct: flags go
// before environment variables (AGENTMARKET_*), these before a file, that before
// defaults. It checks that they make sense together and opens nothing but the file.
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

// secretTag marks the settings that nobody may see.
const secretTag = "secret"

// Config is every setting. Durations are written like 30s or 24h.
type Config struct {
	Addr                        string          `default:"127.0.0.1:8080" env:"AGENTMARKET_ADDR"            help:"Address to listen on."`
	Database                    string          `default:"agentmarket.db" env:"AGENTMARKET_DATABASE"        help:"Path of the SQLite database, made when it is missing, or a postgres:// address."`
	NATSURL                     string          `                         env:"AGENTMARKET_NATS_URL"        help:"Address of a NATS server over which replicas wake each other up; the database does it without one." name:"nats-url"`
	PublicURL                   string          `                         env:"AGENTMARKET_PUBLIC_URL"      help:"Address at which clients reach the server; http:// and the listen address when empty."`
	MarketplaceURL              string          `                         env:"AGENTMARKET_MARKETPLACE_URL" help:"Address that webhooks name as marketplace_url; the public one when empty."`
	SecretKey                   string          `                         env:"AGENTMARKET_SECRET_KEY"      help:"Key that seals webhook secrets, at least 16 characters; when empty one is made beside the database." secret:""`
	OldSecretKey                string          `                         env:"AGENTMARKET_OLD_SECRET_KEY"  help:"Key whose seals are opened too, while a server goes from one secret key to the next." secret:""`
	OperatorKey                 string          `                         env:"AGENTMARKET_OPERATOR_KEY"    help:"Key of who runs the server, at least 32 characters: for /metrics and what is under /operator. Without one /metrics is open and the rest is off." secret:""`
	OperatorKeyFile             string          `                         env:"AGENTMARKET_OPERATOR_KEY_FILE" help:"File with the operator's key, instead." name:"operator-key-file"`
	AllowNetworks               []netip.Prefix  `                         env:"AGENTMARKET_ALLOW_NETWORKS"  help:"Private networks that webhooks and endpoints may be in, like 127.0.0.0/8,10.0.0.0/8."`
	AllowPorts                  []uint16        `default:"443"            env:"AGENTMARKET_ALLOW_PORTS"     help:"Ports that webhooks and endpoints may use on public addresses."`
	AllowOrigins                []string        `                         env:"AGENTMARKET_ALLOW_ORIGINS"   help:"Origins of web pages on other hosts that may use the server, like https://dashboard.example.com."`
	TrustProxies                []netip.Prefix  `                         env:"AGENTMARKET_TRUST_PROXIES"   help:"Networks of reverse proxies whose X-Forwarded-For is believed."`
	RateLimits                  string          `default:"on"             env:"AGENTMARKET_RATE_LIMITS"     help:"Limit requests by key and address: on or off." enum:"on,off"`
	Introspection               string          `default:"on"             env:"AGENTMARKET_INTROSPECTION"   help:"Let clients read the GraphQL schema: on or off." enum:"on,off"`
	TrustedDocuments            string          `                         env:"AGENTMARKET_TRUSTED_DOCUMENTS" help:"JSON manifest of the only GraphQL documents to run, by their SHA-256; any document when empty." name:"trusted-documents"`
	EndpointTimeout             time.Duration   `default:"60s"            env:"AGENTMARKET_ENDPOINT_TIMEOUT" help:"How long who hires waits for the result, and an endpoint may take to answer." name:"endpoint-timeout"`
	ExecutionDeadline           time.Duration   `default:"1h"             env:"AGENTMARKET_EXECUTION_DEADLINE" help:"How long a hired agent has that answered 202, or that nobody waits for; then the budget is given back." name:"execution-deadline"`
	WebhookTimeout              time.Duration   `default:"15s"            env:"AGENTMARKET_WEBHOOK_TIMEOUT" help:"How long one webhook attempt may take." name:"webhook-timeout"`
	WebhookRetries              []time.Duration `default:"5s,5m,30m,2h,5h,10h,10h" env:"AGENTMARKET_WEBHOOK_RETRIES" help:"Pauses between the attempts of a webhook delivery."`
	Lease                       time.Duration   `default:"24h"            env:"AGENTMARKET_LEASE"           help:"How long a worker has for a task, unless the task says otherwise."`
	OpenFor                     time.Duration   `default:"168h"           env:"AGENTMARKET_OPEN_FOR"        help:"How long a task stays open, unless it says otherwise."`
	KeepEvents                  time.Duration   `default:"720h"           env:"AGENTMARKET_KEEP_EVENTS"     help:"How long events can be read again with a cursor, at least 24h and longer than a delivery is retried; 0s for ever."`
	KeepDeliveries              *time.Duration  `                         env:"AGENTMARKET_KEEP_DELIVERIES" help:"How long webhook deliveries and their attempts are kept, longer than the pauses between attempts add up to and not longer than events; 0s for ever; as long as events, 720h at most, when not given."`
	KeepAudit                   time.Duration   `default:"2160h"          env:"AGENTMARKET_KEEP_AUDIT"      help:"How long the audit log is kept, at least 24h; 0s for ever."`
	MinBudget                   models.Credits  `default:"2"              env:"AGENTMARKET_MIN_BUDGET"      help:"The least budget of a task, in credits."`
	StartingCredits             models.Credits  `default:"100"            env:"AGENTMARKET_STARTING_CREDITS" help:"Credits a new agent gets." name:"starting-credits"`
	Drain                       time.Duration   `default:"0s"             env:"AGENTMARKET_DRAIN"           help:"How long to serve on after SIGTERM while /readyz answers 503, for balancers to find out."`
	ClaudeModel                 string          `default:"claude-sonnet-4-5" env:"AGENTMARKET_CLAUDE_MODEL" help:"Model that runs system prompts."`
	ClaudeMaxTokens             int64           `default:"4096"           env:"AGENTMARKET_CLAUDE_MAX_TOKENS" help:"Most tokens of one answer of the model." name:"claude-max-tokens"`
	ClaudeAtOnce                int64           `default:"32"             env:"AGENTMARKET_CLAUDE_AT_ONCE"  help:"How many hires may run on the model at once; 0 for any number." name:"claude-at-once"`
	ClaudeAtOncePerAgent        int64           `default:"8"              env:"AGENTMARKET_CLAUDE_AT_ONCE_PER_AGENT" help:"How many of those one agent may hire; 0 for any number." name:"claude-at-once-per-agent"`
	ClaudeTokensPerHour         int64           `default:"5000000"        env:"AGENTMARKET_CLAUDE_TOKENS_PER_HOUR" help:"How many tokens, read and written, hires may take of the model in an hour; 0 for any number." name:"claude-tokens-per-hour"`
	ClaudeTokensPerHourPerAgent int64           `default:"500000"         env:"AGENTMARKET_CLAUDE_TOKENS_PER_HOUR_PER_AGENT" help:"How many of those one agent may hire for; 0 for any number." name:"claude-tokens-per-hour-per-agent"`
	OTLPEndpoint                string          `                         env:"OTEL_EXPORTER_OTLP_ENDPOINT" help:"Address of an OpenTelemetry collector that traces are sent to, over OTLP/HTTP; none are made without one." name:"otel-exporter-otlp-endpoint"`
	AnthropicAPIKey             string          `                         env:"ANTHROPIC_API_KEY"           help:"Key for the Claude API; system prompts are off without one." name:"anthropic-api-key" secret:""`
	AnthropicBaseURL            string          `                         env:"ANTHROPIC_BASE_URL"          help:"Address of the Claude API." name:"anthropic-base-url"`
}

// MinOperatorKeyLength is how many characters the operator's key has at least: 128 bits in
// hex, which nobody guesses.
const MinOperatorKeyLength = 32

// minSecretKeyLength is how many characters a key to seal with has at least.
const minSecretKeyLength = 16

// minEventRetention is the least that events are kept: for as long as an
// Idempotency-Key, so that who resumes a day later finds what happened. The
// database itself refuses to take younger ones away.
const minEventRetention = 24 * time.Hour

// minAuditRetention is the least that the audit log is kept: the database itself refuses to
// take younger entries away. By default it is kept for the three months that PCI DSS
// 4.0, requirement 10.5.1, wants at hand.
const minAuditRetention = 24 * time.Hour

// defaultRetention is for how long events and deliveries are kept by default.
const defaultRetention = 720 * time.Hour

// Validate refuses settings that cannot work, with a line for each.
func (c *Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.Addr != "", "addr: must not be empty")
	check(c.Database != "", "database: must not be empty")
	check(c.MinBudget >= models.MinBudget && c.MinBudget <= models.MaxBudget,
		"min-budget: must be from %d to %d", models.MinBudget, models.MaxBudget)
	check(c.StartingCredits >= 0 && c.StartingCredits <= models.MaxBudget, "starting-credits: must be from 0 to %d", models.MaxBudget)
	check(c.Lease >= time.Minute, "lease: must be at least 1m")
	check(c.OpenFor >= time.Minute, "open-for: must be at least 1m")
	retries := c.maxRetryDuration()
	check(c.KeepEvents == 0 || c.KeepEvents >= minEventRetention && c.KeepEvents > retries,
		"keep-events: must be at least %s and more than %s, in which a delivery is retried, or 0s", minEventRetention, retries)
	if c.KeepDeliveries != nil {
		keep := *c.KeepDeliveries
		check(keep == 0 || keep > retries, "keep-deliveries: must be more than %s, in which a delivery is retried, or 0s", retries)
		check(c.KeepEvents == 0 || keep > 0 && keep <= c.KeepEvents,
			"keep-deliveries: must not be longer than keep-events: a delivery names its event")
	}
	check(c.KeepAudit == 0 || c.KeepAudit >= minAuditRetention, "keep-audit: must be at least %s, or 0s", minAuditRetention)
	check(c.EndpointTimeout > 0, "endpoint-timeout: must be more than 0")
	check(c.ExecutionDeadline > c.EndpointTimeout, "execution-deadline: must be more than endpoint-timeout")
	check(min(c.ClaudeAtOnce, c.ClaudeAtOncePerAgent, c.ClaudeTokensPerHour, c.ClaudeTokensPerHourPerAgent) >= 0, "claude-at-once and claude-tokens-per-hour: must not be negative")
	check(c.WebhookTimeout > 0, "webhook-timeout: must be more than 0")
	check(c.SecretKey != "" || !strings.Contains(c.Database, "://"), "secret-key: must be given with PostgreSQL, the same to every replica")
	check(c.NATSURL == "" || strings.Contains(c.Database, "://"), "nats-url: is for replicas on PostgreSQL; the database is a file")
	check(isNATSURL(c.NATSURL), "nats-url: must be like nats://host:4222, with commas between several")
	check(c.Drain >= 0, "drain: must not be negative")
	check(c.OldSecretKey == "" || c.SecretKey != "", "old-secret-key: is for a server that is given its secret key")
	errs = append(errs, CheckSecretKeys(c.SecretKey, c.OldSecretKey))
	check(c.OperatorKey == "" || len(c.OperatorKey) >= MinOperatorKeyLength, "operator-key: must have at least %d characters", MinOperatorKeyLength)
	check(c.OperatorKey == "" || c.OperatorKeyFile == "", "operator-key-file: is instead of operator-key")
	check(isHTTPURL(c.PublicURL), "public-url: %q is not an address like https://example.com", c.PublicURL)
	check(isHTTPURL(c.MarketplaceURL), "marketplace-url: %q is not an address like https://example.com", c.MarketplaceURL)
	check(isHTTPURL(c.OTLPEndpoint), "otel-exporter-otlp-endpoint: %q is not an address like http://collector:4318", c.OTLPEndpoint)
	return errors.Join(errs...)
}

// CheckSecretKeys refuses keys that are given and too short to seal with.
func CheckSecretKeys(key, old string) error {
	var errs []error
	for _, given := range []struct{ name, key string }{{"secret-key", key}, {"old-secret-key", old}} {
		if given.key != "" && len(given.key) < minSecretKeyLength {
			errs = append(errs, fmt.Errorf("%s: must have at least %d characters", given.name, minSecretKeyLength))
		}
	}
	return errors.Join(errs...)
}

// Secrets are the settings that nobody may see.
func (c *Config) Secrets() (all []string) {
	for field, value := range reflect.ValueOf(c).Elem().Fields() {
		if _, secret := field.Tag.Lookup(secretTag); secret {
			all = append(all, value.String())
		}
	}
	return all
}

// maxRetryDuration is how long the retries of a delivery can go on when its receiver asks
// for no longer pauses: each may be lengthened by a fifth.
func (c *Config) maxRetryDuration() (total time.Duration) {
	for _, pause := range c.WebhookRetries {
		total += pause + pause/5
	}
	return total
}

// isHTTPURL reports whether text is empty or the address of a server.
func isHTTPURL(text string) bool {
	u, err := url.Parse(text)
	return text == "" || err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// isNATSURL reports whether text is empty or where NATS servers are.
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

// DeliveryRetention is how long deliveries are kept, 0 for ever.
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

// Complete fills in what follows from other settings and from the address that
// the server listens on.
func (c *Config) Complete(listening net.Addr) {
	if strings.HasSuffix(c.Addr, ":0") {
		c.Addr = listening.String() // it is any free port
	}
	c.PublicURL = c.BaseURL()
	c.MarketplaceURL = cmp.Or(c.MarketplaceURL, c.PublicURL)
}

// BaseURL is the address at which clients reach the server.
func (c *Config) BaseURL() string {
	return strings.TrimRight(cmp.Or(c.PublicURL, "http://"+c.Addr), "/")
}

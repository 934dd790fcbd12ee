package config_test

import (
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"agentmarket.space/server/internal/config"
)

func parse(t *testing.T, args ...string) (config.Config, *kong.Kong, error) {
	t.Helper()
	var c config.Config
	parser, err := kong.New(&c, kong.Writers(io.Discard, io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	_, err = parser.Parse(args)
	return c, parser, err
}

// TestConfig_flags checks that every setting has a flag with help text and an
// environment variable.
func TestConfig_flags(t *testing.T) {
	t.Parallel()
	_, parser, err := parse(t)
	if err != nil {
		t.Fatalf("parse the defaults: %v", err)
	}
	for _, flag := range parser.Model.Flags {
		if flag.Name == "help" {
			continue
		}
		if len(flag.Envs) != 1 || !regexp.MustCompile("^(AGENTMARKET|ANTHROPIC|OTEL)_").MatchString(flag.Envs[0]) {
			t.Errorf("--%s has environment variables %q", flag.Name, flag.Envs)
		}
		if !strings.HasSuffix(flag.Help, ".") {
			t.Errorf("--%s: the help text %q does not end with a period", flag.Name, flag.Help)
		}
	}
}

// TestConfig_precedence checks that a flag takes precedence over the environment,
// and the environment over the default.
func TestConfig_precedence(t *testing.T) { //nolint:paralleltest // sets environment variables
	t.Setenv("AGENTMARKET_LEASE", "2h")
	t.Setenv("AGENTMARKET_OPEN_FOR", "3h")
	t.Setenv("AGENTMARKET_ALLOW_NETWORKS", "127.0.0.0/8,10.0.0.0/8")
	c, _, err := parse(t, "--lease=4h")
	if err != nil || c.Lease != 4*time.Hour || c.OpenFor != 3*time.Hour || c.Addr != "127.0.0.1:8080" || len(c.AllowNetworks) != 2 {
		t.Errorf("got %+v, %v", c, err)
	}
}

// TestValidate checks that Validate reports every invalid setting.
func TestValidate(t *testing.T) {
	t.Parallel()
	for arg, want := range map[string]string{
		"--otel-exporter-otlp-endpoint=collector:4318": "is not a URL like http://collector:4318",
		"--addr=":                     "addr: must not be empty",
		"--addr=8080":                 "addr: must be a host and a port number",
		"--addr=:http":                "addr: must be a host and a port number",
		"--addr=:65536":               "addr: must be a host and a port number",
		"--addr=127.0.0.1:":           "addr: must be a host and a port number",
		"--database=":                 "database: must not be empty",
		"--lease=59s":                 "lease: must be at least 1m",
		"--open-for=0s":               "open-for: must be at least 1m",
		"--min-budget=1":              "min-budget: must be from 2",
		"--starting-credits=-1":       "starting-credits: must be from 0",
		"--endpoint-timeout=0s":       "endpoint-timeout: must be more than 0",
		"--webhook-timeout=-1s":       "webhook-timeout: must be more than 0",
		"--secret-key=short":          "secret-key: must have at least 16 characters",
		"--public-url=market.example": "public-url: must be a URL like https://example.com",
		"--allow-origins=https://a.example,https://*.example.com":    "allow-origins: must have a host without wildcards",
		"--allow-origins=https://a.example/":                         "allow-origins: must only have a scheme, a host and a port",
		"--marketplace-url=https://user:secret@a.b":                  "marketplace-url: must not have credentials",
		"--anthropic-base-url=api.anthropic.com":                     "anthropic-base-url: ",
		"--otel-exporter-otlp-endpoint=https://user:secret@a.b:4318": "otel-exporter-otlp-endpoint: must not have credentials",
		"--allow-networks=::ffff:10.0.0.0/104":                       "allow-networks: ::ffff:10.0.0.0/104 contains no address",
		"--trust-proxies=::ffff:10.0.0.0/104":                        "trust-proxies: ::ffff:10.0.0.0/104 contains no address",
		"--allow-ports=443,0":                                        "allow-ports: must be from 1 to 65535",
		"--webhook-retries=5s,-1s":                                   "webhook-retries: must not be negative",
		"--claude-max-tokens=0":                                      "claude-max-tokens: must be more than 0",
		"--claude-model=":                                            "claude-model: must not be empty",
		"--endpoint-timeout=2562047h":                                "a duration of 2562047h0m0s is too long",
		"--marketplace-url=ftp://a.b":                                "marketplace-url:",
		"--nats-url=https://a.b":                                     "nats-url: must be one or more comma-separated addresses",
		"--nats-url=nats://a:p,b":                                    "nats-url: must be one or more comma-separated addresses",
		"--nats-url=nats://a,nats://":                                "nats-url: must be one or more comma-separated addresses",
		"--keep-events=23h59m":                                       "keep-events: must be 0s, or at least 24h0m0s and more than 33h6m6s",
		"--keep-events=-1s":                                          "keep-events: must be 0s, or at least 24h0m0s",
		"--keep-events=33h":                                          "keep-events: must be 0s, or at least 24h0m0s and more than 33h6m6s",
		"--keep-deliveries=721h":                                     "keep-deliveries: must not be longer than keep-events",
		"--keep-deliveries=0s":                                       "keep-deliveries: must not be longer than keep-events",
		"--keep-deliveries=33h":                                      "keep-deliveries: must be 0s, or more than 33h6m6s",
		"--rate-limits=maybe":                                        "must be one of",
		"--lease=soon":                                               "lease",
		"--allow-networks=127.0.0.1/x":                               "allow-networks",
	} {
		if _, _, err := parse(t, arg); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret@") {
			t.Errorf("%s: got %v, want %q", arg, err, want)
		}
	}
	for _, url := range []string{"nats://a", "a:4222", "tls://user:password@a:4222, nats://b:4222", "wss://a"} {
		if _, _, err := parse(t, "--nats-url="+url, "--database=postgres://a/b", "--secret-key=sixteen letters!"); err != nil {
			t.Errorf("%s: got %v", url, err)
		}
	}
	if _, _, err := parse(t, "--lease=1s", "--open-for=1s"); err == nil || strings.Count(err.Error(), "must be at least") != 2 {
		t.Errorf("two invalid settings: got %v", err)
	}
}

// TestComplete checks the URLs that derive from the listen address.
func TestComplete(t *testing.T) {
	t.Parallel()
	listener := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4321}
	for _, row := range []struct{ addr, public, marketplace, wantPublic, wantMarketplace string }{
		{"127.0.0.1:8080", "", "", "http://127.0.0.1:8080", "http://127.0.0.1:8080"},
		{"127.0.0.1:0", "", "", "http://127.0.0.1:4321", "http://127.0.0.1:4321"},
		{":8080", "", "", "http://127.0.0.1:8080", "http://127.0.0.1:8080"},
		{"0.0.0.0:8080", "", "", "http://127.0.0.1:8080", "http://127.0.0.1:8080"},
		{"[::]:8080", "", "", "http://127.0.0.1:8080", "http://127.0.0.1:8080"},
		{"[::1]:8080", "", "", "http://[::1]:8080", "http://[::1]:8080"},
		{"localhost:80", "", "", "http://localhost", "http://localhost"},
		{":8080", "https://market.example/", "", "https://market.example", "https://market.example"},
		{":8080", "HTTPS://Market.Example:443/Agents/", "", "https://market.example/Agents", "https://market.example/Agents"},
		{":8080", "https://market.example", "https://agentmarket.space", "https://market.example", "https://agentmarket.space"},
	} {
		c := config.Config{Addr: row.addr, PublicURL: row.public, MarketplaceURL: row.marketplace}
		if c.Complete(listener); c.PublicURL != row.wantPublic || c.MarketplaceURL != row.wantMarketplace {
			t.Errorf("%+v: got %s and %s", row, c.PublicURL, c.MarketplaceURL)
		}
	}
}

// TestDeliveryRetention checks that deliveries are kept as long as events by default,
// but not longer than 720h.
func TestDeliveryRetention(t *testing.T) {
	t.Parallel()
	for arg, want := range map[string]time.Duration{
		"--addr=:0":              720 * time.Hour,
		"--keep-events=48h":      48 * time.Hour,
		"--keep-events=0s":       720 * time.Hour,
		"--keep-events=2000h":    720 * time.Hour,
		"--keep-deliveries=100h": 100 * time.Hour,
	} {
		if c, _, err := parse(t, arg); err != nil || c.DeliveryRetention() != want {
			t.Errorf("%s: retention is %s (%v), want %s", arg, c.DeliveryRetention(), err, want)
		}
	}
}

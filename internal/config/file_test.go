package config_test

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"agentmarket.space/server/internal/config"
)

// testCommand is a command that reads a configuration file.
type testCommand struct {
	config.File   `embed:""`
	config.Config `embed:""`
}

// parseFile parses args together with a configuration file that contains text.
func parseFile(t *testing.T, text string, args ...string) (*testCommand, *kong.Context, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "settings.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var c testCommand
	parser, err := kong.New(&c, kong.Writers(io.Discard, io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := parser.Parse(append(args, "--config", path))
	return &c, parsed, err
}

// TestFile_precedence checks the order flag, environment, file, default, and the
// source that Settings reports.
func TestFile_precedence(t *testing.T) { //nolint:paralleltest // sets environment variables
	t.Setenv("AGENTMARKET_OPEN_FOR", "3h")
	t.Setenv("AGENTMARKET_PUBLIC_URL", "")
	t.Setenv("AGENTMARKET_SECRET_KEY", "a secret key value")
	c, parsed, err := parseFile(t, `{
		"lease": "2h", "open-for": "2h", "keep-audit": "48h", "keep-deliveries": "100h", "public-url": "https://market.example",
		"allow-networks": ["127.0.0.0/8", "10.0.0.0/8"], "allow-ports": [443, 8443], "trust-proxies": [],
		"starting-credits": 500, "rate-limits": "off", "webhook-retries": ["1s", "2s"], "anthropic-api-key": "sk-another-secret",
		"database": "postgres://agentmarket:a/password@db1:5432,db2:5432/market?sslpassword=third"
	}`, "--lease=4h")
	if err != nil {
		t.Fatal(err)
	}
	if c.Lease != 4*time.Hour || c.OpenFor != 3*time.Hour || c.KeepAudit != 48*time.Hour || *c.KeepDeliveries != 100*time.Hour || c.PublicURL != "" ||
		len(c.AllowNetworks) != 2 || len(c.AllowPorts) != 2 || len(c.TrustProxies) != 0 || c.StartingCredits != 500 || c.RateLimits != "off" || len(c.WebhookRetries) != 2 {
		t.Errorf("got settings %+v", c.Config)
	}
	settings, err := config.Settings(parsed)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, setting := range settings {
		got[setting.Name] = setting.Source + " " + setting.Value
		if strings.Contains(setting.Value, "secret") || strings.Contains(setting.Value, "key value") || strings.Contains(setting.Value, "password@") || strings.Contains(setting.Value, "third") {
			t.Errorf("%s: value %s is not masked", setting.Name, setting.Value)
		}
	}
	for name, want := range map[string]string{
		"lease": "flag 4h0m0s", "open-for": "environment 3h0m0s", "keep-audit": "file 48h0m0s", "keep-deliveries": "file 100h0m0s", "addr": "default 127.0.0.1:8080",
		"allow-networks": "file 127.0.0.0/8,10.0.0.0/8", "allow-ports": "file 443,8443", "secret-key": "environment ********", "old-secret-key": "default ",
		"anthropic-api-key": "file ********", "public-url": "environment ", "operator-key-file": "default ",
		"database": "file postgres://********@db1:5432,db2:5432/market?sslpassword=********",
	} {
		if got[name] != want {
			t.Errorf("%s: got %q, want %q", name, got[name], want)
		}
	}
	if _, listed := got["config"]; listed {
		t.Error("config is listed as a setting")
	}
}

// TestFile_rejectsInvalid checks that errors name the file and the setting.
func TestFile_rejectsInvalid(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		``:                                    "want a JSON object",
		`[]`:                                  "want a JSON object",
		`"lease"`:                             "want a JSON object",
		`{"lease": "2h"`:                      "line 1: unexpected",
		"{\n\"lease\": \"2h\",\n\"addr\" 3}":  "line 3: ",
		`{"lease": "2h"} {}`:                  "unexpected data after",
		`{"leese": "2h"}`:                     "leese: unknown setting",
		`{"Lease": "2h"}`:                     "Lease: unknown setting",
		`{"config": "other.json"}`:            "config: unknown setting",
		`{"lease": "2h", "lease": "3h"}`:      "lease: duplicate setting",
		`{"lease": 7200}`:                     `lease: must be a string like "30s"`,
		`{"lease": "soon"}`:                   "lease: expected duration",
		`{"lease": null}`:                     "lease: must be a string",
		`{"keep-deliveries": 1}`:              "keep-deliveries: must be a string",
		`{"addr": 8080}`:                      "addr: must be a string",
		`{"addr": {"port": 1}}`:               "addr: must be a string",
		`{"starting-credits": "100"}`:         "starting-credits: must be a number",
		`{"starting-credits": 1.5}`:           "starting-credits: expected a valid 64 bit int",
		`{"starting-credits": 1e99}`:          "starting-credits: expected a valid 64 bit int",
		`{"allow-ports": 443}`:                "allow-ports: must be a list",
		`{"allow-ports": ["443"]}`:            "allow-ports: list item: must be a number",
		`{"allow-ports": [443, 70000]}`:       "allow-ports: expected a valid 16 bit uint",
		`{"allow-networks": ["127.0.0.1/x"]}`: "allow-networks: ",
		`{"rate-limits": "maybe"}`:            "--rate-limits must be one of",
		`{"lease": "1s"}`:                     "lease: must be at least 1m",
	} {
		_, _, err := parseFile(t, text)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
	for _, path := range []string{filepath.Join(t.TempDir(), "missing.json"), t.TempDir()} {
		var c testCommand
		parser, err := kong.New(&c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse([]string{"--config", path}); err == nil || strings.Count(err.Error(), path) != 1 {
			t.Errorf("%s: got %v", path, err)
		}
	}
}

// TestFile_everySetting checks that every setting can be set in a file, and that every
// key is masked.
func TestFile_everySetting(t *testing.T) {
	t.Parallel()
	const key = "0123456789abcdef0123456789abcdef"
	c, parsed, err := parseFile(t, `{"secret-key": "`+key+`", "old-secret-key": "`+key+`", "operator-key": "`+key+`", "anthropic-api-key": "`+key+`"}`)
	if err != nil {
		t.Fatal(err)
	}
	settings, err := config.Settings(parsed)
	if err != nil {
		t.Fatal(err)
	}
	for _, setting := range settings {
		if _, _, err := parseFile(t, `{"`+setting.Name+`": {}}`); err == nil || !strings.Contains(err.Error(), setting.Name+": must be") {
			t.Errorf("%s: an object value: got %v", setting.Name, err)
		}
		if strings.HasSuffix(setting.Name, "key") && setting.Value != "********" {
			t.Errorf("%s: value %q is not masked", setting.Name, setting.Value)
		}
	}
	if got := c.Secrets(); len(got) != 4 || slices.ContainsFunc(got, func(s string) bool { return s != key }) {
		t.Errorf("Secrets returned %q", got)
	}
}

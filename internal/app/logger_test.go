package app

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// TestNewLogger_redactsSecrets checks that keys and secrets are redacted by attribute
// name and by format in messages and all kinds of attributes, and that other values
// are unchanged.
func TestNewLogger_redactsSecrets(t *testing.T) {
	t.Parallel()
	const configured = "a configured secret"
	key, secret := strings.Repeat("0a1B", 16), "whsec_c2VjcmV0+/c2VjcmV0="
	buffer := &logBuffer{}
	logger := NewLogger(buffer, configured, "")
	for name, log := range map[string]func(){
		"message": func() { logger.Info("refused " + key) }, //nolint:sloglint // as in a library
		"text":    func() { logger.Info("m", slog.String("path", "/api?k="+key+"&x=1")) },
		"error":   func() { logger.Info("m", slog.Any("error", fmt.Errorf("call: %w", errors.New("signed with "+secret)))) },
		"struct": func() {
			logger.Info("m", slog.Any("request", struct{ Header map[string]string }{map[string]string{"K": key}}))
		},
		"group": func() {
			logger.Info("m", slog.Group("request", slog.String("header", "Authorization: Bearer "+configured)))
		},
		"with": func() { logger.With(slog.String("by", key)).Info("m") },
		"named": func() {
			logger.Info("m", slog.String("api_key", "abc-short"), slog.String("webhook_secret", "abc-short"))
		},
		"list": func() { logger.Info("m", slog.Any("tokens", []string{"abc-short"})) },
		"prompt": func() {
			logger.Info("m", slog.String("system_prompt", "abc-short"), slog.String("result", "abc-short"))
		},
		"address":    func() { logger.Info("m", slog.String("at", "postgres://me:abc-short@db/market")) },
		"claude":     func() { logger.Info("m", slog.String("at", "sk-ant-api03-abc-short")) },
		"configured": func() { logger.Info("m", slog.String("at", "x"+configured+"x")) },
	} {
		before := len(buffer.String())
		log()
		line := buffer.String()[before:]
		for _, leak := range []string{key, secret, configured, "abc-short"} {
			if strings.Contains(line, leak) {
				t.Errorf("%s: %s", name, line)
			}
		}
		if !strings.Contains(line, redacted) {
			t.Errorf("%s: nothing redacted in %s", name, line)
		}
	}
	before := len(buffer.String())
	logger.Warn("webhook delivery given up", slog.String("delivery_id", "01a2156b-4cbe-78d6-b372-ce29ba33dfe4"), slog.Int("attempts", 3),
		slog.Any("error", errors.New("the address https://agent.example.com:8443/hook is not public")), slog.Int("tokens", 5))
	line := buffer.String()[before:]
	for _, want := range []string{
		`"level":"WARN","msg":"webhook delivery given up","delivery_id":"01a2156b-4cbe-78d6-b372-ce29ba33dfe4","attempts":3`,
		`"error":"the address https://agent.example.com:8443/hook is not public","tokens":5`,
	} {
		if !strings.Contains(line, want) {
			t.Errorf("%s does not contain %s", line, want)
		}
	}
}

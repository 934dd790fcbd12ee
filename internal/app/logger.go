package app

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"strings"
)

// redacted replaces secrets in the log.
const redacted = "[redacted]"

// NewLogger returns a logger that writes text to a terminal and JSON otherwise. It
// redacts attributes whose name or value looks like a key or a secret, and the given
// secrets anywhere.
func NewLogger(w io.Writer, secrets ...string) *slog.Logger {
	options := &slog.HandlerOptions{ReplaceAttr: newRedactor(secrets).replaceAttr}
	if IsTerminal(w) {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// redactor removes secrets from log attributes.
type redactor struct {
	attrNames      *regexp.Regexp // attributes that are always redacted
	secretPatterns *regexp.Regexp // API keys, webhook secrets, Claude API keys, bearer tokens
	urlPasswords   *regexp.Regexp // URLs with a password
	knownSecrets   *strings.Replacer
}

func newRedactor(secrets []string) *redactor {
	var pairs []string
	for _, secret := range secrets {
		if secret != "" {
			pairs = append(pairs, secret, redacted)
		}
	}
	return &redactor{
		attrNames:      regexp.MustCompile(`(?i)^(key|prompt|result)$|api_?key|secret|password|authorization|token|system_?prompt|email`),
		secretPatterns: regexp.MustCompile(`\b[0-9a-fA-F]{64}\b|whsec_[A-Za-z0-9+/=_-]+|sk-ant-[A-Za-z0-9_-]+|(?i)\bbearer +[^\s"]+`),
		urlPasswords:   regexp.MustCompile(`(://[^\s:/@]*:)[^\s@]+@`),
		knownSecrets:   strings.NewReplacer(pairs...),
	}
}

// replaceAttr redacts secrets in an attribute. It implements
// slog.HandlerOptions.ReplaceAttr. Numbers and times are never secret.
func (r *redactor) replaceAttr(groups []string, a slog.Attr) slog.Attr {
	kind := a.Value.Kind()
	if kind != slog.KindString && kind != slog.KindAny || len(groups) == 0 && a.Key == slog.LevelKey {
		return a
	}
	if r.attrNames.MatchString(a.Key) {
		return slog.String(a.Key, redacted)
	}
	text := fmt.Sprint(a.Value.Any())
	if clean := r.redact(text); clean != text {
		return slog.String(a.Key, clean)
	}
	return a
}

func (r *redactor) redact(text string) string {
	text = r.knownSecrets.Replace(text)
	text = r.urlPasswords.ReplaceAllString(text, "${1}"+redacted+"@")
	return r.secretPatterns.ReplaceAllString(text, redacted)
}

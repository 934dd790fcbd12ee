package app

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"strings"
)

// redacted stands in the log for what must not be in it.
const redacted = "[redacted]"

// NewLogger writes text for people on a terminal, JSON for programs elsewhere. What
// has the name or the form of a key or a secret is left out, and so are the secrets
// that are given, wherever they turn up.
func NewLogger(w io.Writer, secrets ...string) *slog.Logger {
	options := &slog.HandlerOptions{ReplaceAttr: newRedactor(secrets).replaceAttr}
	if IsTerminal(w) {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// IsTerminal reports whether people read what is written to w.
func IsTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// redactor is what is left out of a log.
type redactor struct {
	attrNames      *regexp.Regexp // of attributes
	secretPatterns *regexp.Regexp // of API keys, of webhook secrets, of Claude's keys, of keys in headers
	urlPasswords   *regexp.Regexp // with a password in an address
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

// replaceAttr leaves out of an attribute what must not be in the log. Numbers and times are
// no secrets.
func (r *redactor) replaceAttr(groups []string, a slog.Attr) slog.Attr {
	kind := a.Value.Kind()
	if kind != slog.KindString && kind != slog.KindAny || len(groups) == 0 && a.Key == slog.LevelKey {
		return a
	}
	if r.attrNames.MatchString(a.Key) {
		return slog.String(a.Key, redacted)
	}
	whole := fmt.Sprint(a.Value.Any())
	if shown := r.redact(whole); shown != whole {
		return slog.String(a.Key, shown)
	}
	return a
}

func (r *redactor) redact(text string) string {
	text = r.knownSecrets.Replace(text)
	text = r.urlPasswords.ReplaceAllString(text, "${1}"+redacted+"@")
	return r.secretPatterns.ReplaceAllString(text, redacted)
}

package testserver

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

var (
	// secretFieldPattern matches response fields that issue a key or a secret.
	secretFieldPattern = regexp.MustCompile(`"(?:apiKey|api_key|webhookSecret|webhook_secret|secret)":"([^"]+)"`)
	// secretPattern matches API keys and webhook secrets.
	secretPattern = regexp.MustCompile(`\b[0-9a-f]{64}\b|whsec_[A-Za-z0-9+/=]{20,}`)
	// secretSettingPattern matches settings whose value is secret.
	secretSettingPattern = regexp.MustCompile(`^(?:AGENTMARKET_(?:OLD_)?SECRET_KEY|AGENTMARKET_OPERATOR_KEY|ANTHROPIC_API_KEY)=(.+)$`)
)

// prefixSize is the number of bytes of a secret by which it is indexed.
const prefixSize = 8

// Secrets is a set of keys and secrets that a server has issued or was configured with. It
// is safe for concurrent use.
type Secrets struct {
	mu         sync.RWMutex
	all        map[string]bool
	needles    map[[prefixSize]byte][][]byte // encodings of the secrets by their first bytes
	firstBytes [1 << 16]bool                 // the first two bytes of each, to skip most positions quickly
}

// Add adds a secret, both its text and the bytes that it encodes.
func (s *Secrets) Add(secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[secret] {
		return
	}
	if s.all == nil {
		s.all, s.needles = map[string]bool{}, map[[prefixSize]byte][][]byte{}
	}
	s.all[secret] = true
	s.addNeedle([]byte(secret))
	if raw, err := hex.DecodeString(secret); err == nil {
		s.addNeedle(raw)
		s.addNeedle([]byte(base64.StdEncoding.EncodeToString(raw)))
	}
	if encoded, ok := strings.CutPrefix(secret, "whsec_"); ok {
		s.addNeedle([]byte(encoded))
		if raw, err := base64.StdEncoding.DecodeString(encoded); err == nil {
			s.addNeedle(raw)
		}
	}
}

func (s *Secrets) addNeedle(needle []byte) {
	if len(needle) < prefixSize {
		return
	}
	s.needles[[prefixSize]byte(needle)] = append(s.needles[[prefixSize]byte(needle)], needle)
	s.firstBytes[firstTwoBytes(needle)] = true
}

// firstTwoBytes returns the first two bytes as a number.
func firstTwoBytes(data []byte) int { return int(data[0])<<8 | int(data[1]) }

// ScanResponse adds the secrets that a response issues, and returns those that it contains
// elsewhere.
func (s *Secrets) ScanResponse(text string) (shown []string) {
	for _, given := range secretFieldPattern.FindAllStringSubmatch(text, -1) {
		s.Add(given[1])
	}
	return s.Find([]byte(secretFieldPattern.ReplaceAllString(text, "")))
}

// Find returns the secrets that data contains, as text or decoded.
func (s *Secrets) Find(data []byte) (shown []string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i := 0; i+prefixSize <= len(data); i++ {
		if !s.firstBytes[firstTwoBytes(data[i:])] {
			continue
		}
		for _, needle := range s.needles[[prefixSize]byte(data[i:])] {
			if bytes.HasPrefix(data[i:], needle) {
				shown = append(shown, string(needle))
			}
		}
	}
	return shown
}

// addConfiguredSecrets adds the secret settings and the key file of the database.
func (s *Server) addConfiguredSecrets() {
	for _, setting := range s.env {
		if given := secretSettingPattern.FindStringSubmatch(setting); given != nil {
			s.secrets.Add(given[1])
		}
	}
	if key, err := os.ReadFile(filepath.Join(s.Dir, "agentmarket.db.key")); err == nil {
		s.secrets.Add(strings.TrimSpace(string(key)))
	}
}

// FindSecrets returns the secrets of the server that data contains.
func (s *Server) FindSecrets(data []byte) []string {
	s.addConfiguredSecrets()
	return s.secrets.Find(data)
}

// FindLeaks returns the places where the server's log or files contain a key or a secret.
// The key file is skipped.
func (s *Server) FindLeaks() (places []string) {
	scan := func(place string, data []byte) {
		for _, secret := range s.FindSecrets(data) {
			places = append(places, place+" shows "+secret)
		}
	}
	for _, log := range s.logs {
		scan("the log", []byte(log.String()))
	}
	files, _ := filepath.Glob(filepath.Join(s.Dir, "*"))
	for _, file := range files {
		if strings.Contains(filepath.Base(file), ".db.key") {
			continue
		}
		if data, err := os.ReadFile(file); err == nil {
			scan(filepath.Base(file), data)
		}
	}
	return places
}

// secretsInRequest returns the keys and secrets in a request that a server sent, except in
// its signatures.
func secretsInRequest(header http.Header, body []byte) []string {
	shown := secretPattern.FindAllString(string(body), -1)
	for name, values := range header {
		if !strings.Contains(name, "Signature") {
			shown = append(shown, secretPattern.FindAllString(strings.Join(values, "\n"), -1)...)
		}
	}
	return shown
}

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
	// secretFieldPattern is where an answer gives out a key or a secret.
	secretFieldPattern = regexp.MustCompile(`"(?:apiKey|api_key|webhookSecret|webhook_secret|secret)":"([^"]+)"`)
	// secretPattern are those of API keys and webhook secrets.
	secretPattern = regexp.MustCompile(`\b[0-9a-f]{64}\b|whsec_[A-Za-z0-9+/=]{20,}`)
	// secretSettingPattern are those that are secret.
	secretSettingPattern = regexp.MustCompile(`^(?:AGENTMARKET_(?:OLD_)?SECRET_KEY|AGENTMARKET_OPERATOR_KEY|ANTHROPIC_API_KEY)=(.+)$`)
)

// prefixSize is how much of a secret is looked for first.
const prefixSize = 8

// Secrets are the keys and secrets that were given out, or that a server was given.
// They are safe for concurrent use.
type Secrets struct {
	mu         sync.RWMutex
	all        map[string]bool
	needles    map[[prefixSize]byte][][]byte // the secrets and what they stand for, by how they begin
	firstBytes [1 << 16]bool                 // with which two bytes, so that most places are passed over at once
}

// Add notes a secret, as it is and as the bytes that it stands for.
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

// firstTwoBytes is the first two bytes as a number.
func firstTwoBytes(data []byte) int { return int(data[0])<<8 | int(data[1]) }

// ScanResponse notes what an answer gives out, and returns the secrets that it shows
// beside that.
func (s *Secrets) ScanResponse(text string) (shown []string) {
	for _, given := range secretFieldPattern.FindAllStringSubmatch(text, -1) {
		s.Add(given[1])
	}
	return s.Find([]byte(secretFieldPattern.ReplaceAllString(text, "")))
}

// Find returns the secrets that data shows, as they are or as the bytes that they
// stand for.
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

// addConfiguredSecrets notes the secrets among settings, and the key beside the database.
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

// FindSecrets returns the secrets of the server that data shows.
func (s *Server) FindSecrets(data []byte) []string {
	s.addConfiguredSecrets()
	return s.secrets.Find(data)
}

// FindLeaks are where the log and the files of the server show a key or a secret that it
// gave out or was given. The file of the secret key is passed over.
func (s *Server) FindLeaks() (places []string) {
	look := func(place string, data []byte) {
		for _, secret := range s.FindSecrets(data) {
			places = append(places, place+" shows "+secret)
		}
	}
	for _, log := range s.logs {
		look("the log", []byte(log.String()))
	}
	files, _ := filepath.Glob(filepath.Join(s.Dir, "*"))
	for _, file := range files {
		if strings.Contains(filepath.Base(file), ".db.key") {
			continue
		}
		if data, err := os.ReadFile(file); err == nil {
			look(filepath.Base(file), data)
		}
	}
	return places
}

// secretsInRequest returns what has the form of a key or a secret in a request that a server made,
// signatures apart.
func secretsInRequest(header http.Header, body []byte) []string {
	shown := secretPattern.FindAllString(string(body), -1)
	for name, values := range header {
		if !strings.Contains(name, "Signature") {
			shown = append(shown, secretPattern.FindAllString(strings.Join(values, "\n"), -1)...)
		}
	}
	return shown
}

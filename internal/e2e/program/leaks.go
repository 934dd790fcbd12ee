package program

import (
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
	// issuing is where an answer gives out a key or a secret.
	issuing = regexp.MustCompile(`"(?:apiKey|api_key|webhookSecret|webhook_secret|secret)":"([^"]+)"`)
	// forms are those of API keys and webhook secrets.
	forms = regexp.MustCompile(`\b[0-9a-f]{64}\b|whsec_[A-Za-z0-9+/=]{20,}`)
	// settings are those that are secret.
	settings = regexp.MustCompile(`^(?:AGENTMARKET_(?:OLD_)?SECRET_KEY|AGENTMARKET_OPERATOR_KEY|ANTHROPIC_API_KEY)=(.+)$`)
)

// Secrets are the keys and secrets that were given out, or that a server was given.
// They are safe for concurrent use.
type Secrets struct {
	mu  sync.Mutex
	all map[string]bool
}

// Add notes a secret.
func (s *Secrets) Add(secret string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[string]bool{}
	}
	s.all[secret] = true
}

// Answer notes what an answer gives out, and returns the secrets that it shows
// beside that.
func (s *Secrets) Answer(text string) (shown []string) {
	for _, given := range issuing.FindAllStringSubmatch(text, -1) {
		s.Add(given[1])
	}
	return s.Find([]byte(issuing.ReplaceAllString(text, "")))
}

// head is how much of a secret is looked for first.
const head = 8

// Find returns the secrets that data shows, as they are or as the bytes that they
// stand for.
func (s *Secrets) Find(data []byte) (shown []string) {
	needles := s.needles()
	for i := 0; i+head <= len(data); i++ {
		for _, needle := range needles[[head]byte(data[i:])] {
			if strings.HasPrefix(string(data[i:min(len(data), i+len(needle))]), needle) {
				shown = append(shown, needle)
			}
		}
	}
	return shown
}

// needles are the secrets and what they stand for, by how they begin.
func (s *Secrets) needles() map[[head]byte][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[[head]byte][]string{}
	add := func(needle string) {
		if len(needle) >= head {
			found[[head]byte([]byte(needle))] = append(found[[head]byte([]byte(needle))], needle)
		}
	}
	for secret := range s.all {
		add(secret)
		if raw, err := hex.DecodeString(secret); err == nil {
			add(string(raw))
			add(base64.StdEncoding.EncodeToString(raw))
		}
		if encoded, ok := strings.CutPrefix(secret, "whsec_"); ok {
			add(encoded)
			if raw, err := base64.StdEncoding.DecodeString(encoded); err == nil {
				add(string(raw))
			}
		}
	}
	return found
}

// configured notes the secrets among settings, and the key beside the database.
func (s *Server) configured() {
	for _, setting := range s.env {
		if given := settings.FindStringSubmatch(setting); given != nil {
			s.secrets.Add(given[1])
		}
	}
	if key, err := os.ReadFile(filepath.Join(s.Dir, "agentmarket.db.key")); err == nil {
		s.secrets.Add(strings.TrimSpace(string(key)))
	}
}

// Shown returns the secrets of the server that data shows.
func (s *Server) Shown(data []byte) []string {
	s.configured()
	return s.secrets.Find(data)
}

// Leaks are where the log and the files of the server show a key or a secret that it
// gave out or was given. The file of the secret key is passed over.
func (s *Server) Leaks() (places []string) {
	look := func(place string, data []byte) {
		for _, secret := range s.Shown(data) {
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

// sent returns what has the form of a key or a secret in a request that a server made,
// signatures apart.
func sent(header http.Header, body []byte) []string {
	shown := forms.FindAllString(string(body), -1)
	for name, values := range header {
		if !strings.Contains(name, "Signature") {
			shown = append(shown, forms.FindAllString(strings.Join(values, "\n"), -1)...)
		}
	}
	return shown
}

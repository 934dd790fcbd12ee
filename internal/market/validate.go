package market

import (
	"net/mail"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"agentmarket.space/server/internal/words"
	"agentmarket.space/server/models"
)

// Limits of input fields, in characters unless noted. The schema's descriptions repeat
// them.
const (
	maxName                 = 100
	maxAgentDescription     = 2000
	maxSystemPrompt         = 20_000
	maxEmail                = 320
	maxTitle                = 200
	maxDescription          = 50_000
	maxResult               = 200_000
	maxComment              = 1000
	maxCapabilities         = 50 // of an agent
	maxRequiredCapabilities = 20 // of a task
	maxCapabilityLength     = 50
	maxOpenFor              = 90 * 24 * time.Hour
	maxLease                = 30 * 24 * time.Hour
)

// checkText returns INVALID_INPUT for invalid text and for text that is empty with a
// positive minLen or longer than maxLen characters.
func checkText(field, text string, minLen, maxLen int) error {
	switch n := utf8.RuneCountInString(text); {
	case !utf8.ValidString(text):
		return models.FieldErrorf(field, "must be valid UTF-8")
	case strings.ContainsRune(text, 0):
		return models.FieldErrorf(field, "must not have NUL characters")
	case minLen > 0 && strings.TrimSpace(text) == "":
		return models.FieldErrorf(field, "must not be empty")
	case n > maxLen:
		return models.FieldErrorf(field, "must have at most %d characters, not %d", maxLen, n)
	}
	return nil
}

// NormalizeCapabilities returns capabilities in their stored form and without duplicates, in the given order. INVALID_INPUT for an invalid capability and for more
// than limit.
func NormalizeCapabilities(field string, capabilities []string, limit int) ([]string, error) {
	normalized := make([]string, 0, len(capabilities))
	for _, capability := range capabilities {
		capability = normalizeCapability(capability)
		if err := checkText(field, capability, 1, maxCapabilityLength); err != nil {
			return nil, err
		}
		if !slices.Contains(normalized, capability) {
			normalized = append(normalized, capability)
		}
		if len(normalized) > limit {
			return nil, models.FieldErrorf(field, "must have at most %d words", limit)
		}
	}
	return normalized, nil
}

// normalizeCapability returns a capability in its stored form, in which equal capabilities
// have equal bytes.
func normalizeCapability(text string) string {
	if !utf8.ValidString(text) {
		return text // checkText rejects it
	}
	return words.Fold(strings.TrimSpace(text))
}

// checkEmail returns INVALID_INPUT unless email is empty or an address alone. An address
// with a name, such as "Bob <bob@example.com>", is rejected: the reader of the field
// expects an address to send mail to.
func checkEmail(field, email string) error {
	if email == "" {
		return nil
	}
	if err := checkText(field, email, 0, maxEmail); err != nil {
		return err
	}
	address, err := mail.ParseAddress(email)
	if err != nil || "<"+email+">" != (&mail.Address{Address: address.Address}).String() {
		return models.FieldErrorf(field, "must be an email address alone, such as bob@example.com")
	}
	return nil
}

func checkPrice(field string, price models.Credits) error {
	if price < 1 || price > models.MaxBudget {
		return models.FieldErrorf(field, "must be from 1 to %d credits", models.MaxBudget)
	}
	return nil
}

func (m *Market) checkBudget(field string, budget models.Credits) error {
	if budget < m.Settings.MinBudget || budget > models.MaxBudget {
		return models.FieldErrorf(field, "must be from %d to %d credits", m.Settings.MinBudget, models.MaxBudget)
	}
	return nil
}

// minutesOrDefault returns n minutes, or the default if n is nil. INVALID_INPUT for a
// number below 1 or above limit.
func minutesOrDefault(field string, n *int, limit, defaultDuration time.Duration) (time.Duration, error) {
	if n == nil {
		return defaultDuration, nil
	}
	if *n < 1 || *n > int(limit.Minutes()) {
		return 0, models.FieldErrorf(field, "must be from 1 to %d minutes", int(limit.Minutes()))
	}
	return time.Duration(*n) * time.Minute, nil
}

package market

import (
	"net/mail"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"agentmarket.space/server/models"
)

// Limits of what agents may write, in characters unless said otherwise. The
// schema's descriptions give the same figures.
const (
	maxName                 = 100
	maxAgentDescription     = 2000
	maxSystemPrompt         = 20_000
	maxEmail                = 320
	maxTitle                = 200
	maxDescription          = 50_000
	maxResult               = 200_000
	maxComment              = 1000
	maxCapabilities         = 50 // words of an agent
	maxRequiredCapabilities = 20 // words of a task
	maxCapabilityLength     = 50
	maxOpenFor              = 90 * 24 * time.Hour
	maxLease                = 30 * 24 * time.Hour
)

// checkText refuses text that is not valid, or not between two lengths.
func checkText(field, text string, least, most int) error {
	switch n := utf8.RuneCountInString(text); {
	case !utf8.ValidString(text):
		return models.Invalid(field, "must be valid UTF-8")
	case strings.ContainsRune(text, 0):
		return models.Invalid(field, "must not have NUL characters")
	case least > 0 && strings.TrimSpace(text) == "":
		return models.Invalid(field, "must not be empty")
	case n > most:
		return models.Invalid(field, "must have at most %d characters, not %d", most, n)
	}
	return nil
}

// NormalizeCapabilities returns capabilities as they are kept: lower case, without blanks at
// their ends, without repeats, in the order given.
func NormalizeCapabilities(field string, words []string, most int) ([]string, error) {
	kept := make([]string, 0, len(words))
	for _, word := range words {
		word = strings.ToLower(strings.TrimSpace(word))
		if err := checkText(field, word, 1, maxCapabilityLength); err != nil {
			return nil, err
		}
		if !slices.Contains(kept, word) {
			kept = append(kept, word)
		}
		if len(kept) > most {
			return nil, models.Invalid(field, "must have at most %d words", most)
		}
	}
	return kept, nil
}

func checkEmail(field, email string) error {
	if email == "" {
		return nil
	}
	if err := checkText(field, email, 0, maxEmail); err != nil {
		return err
	}
	if _, err := mail.ParseAddress(email); err != nil {
		return models.Invalid(field, "must be an email address")
	}
	return nil
}

func checkPrice(field string, price models.Credits) error {
	if price < 1 || price > models.MaxBudget {
		return models.Invalid(field, "must be from 1 to %d credits", models.MaxBudget)
	}
	return nil
}

func (m *Market) checkBudget(field string, budget models.Credits) error {
	if budget < m.Settings.MinBudget || budget > models.MaxBudget {
		return models.Invalid(field, "must be from %d to %d credits", m.Settings.MinBudget, models.MaxBudget)
	}
	return nil
}

// minutesOrDefault returns a number of minutes as a duration, the default without one.
func minutesOrDefault(field string, n *int, most, standard time.Duration) (time.Duration, error) {
	if n == nil {
		return standard, nil
	}
	if *n < 1 || *n > int(most.Minutes()) {
		return 0, models.Invalid(field, "must be from 1 to %d minutes", int(most.Minutes()))
	}
	return time.Duration(*n) * time.Minute, nil
}

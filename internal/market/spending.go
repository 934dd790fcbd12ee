package market

import (
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// SpendingLimits bounds what hires that run on the operator's model cost the operator,
// in all and for each agent that hires. What is 0 is not bounded.
type SpendingLimits struct {
	MaxTokens             int64 // of one answer
	MaxConcurrent         int64
	MaxConcurrentPerAgent int64
	TokensPerHour         int64
	TokensPerHourPerAgent int64
}

const (
	// bytesPerToken is what a token of a prompt is taken for until the model has
	// counted. A guess, and a short one: a token of English has more letters.
	bytesPerToken = 3
	// busyRetryAfter is how long to wait for others to end. A guess: runs take seconds.
	busyRetryAfter = 5 * time.Second
)

// modelUsage is what runs under way and of the last hour come to, of all agents and of
// one.
type modelUsage struct {
	running, runningOfAgent int64
	tokens, tokensOfAgent   int64
	oldest, oldestOfAgent   models.Time // when the oldest of them was hired; 0 for none
}

// reserveTokens returns how many tokens a hire is to be counted with until it has run,
// nil when it does not run on the operator's model. RATE_LIMITED when its poster
// has used up what one may, UNAVAILABLE when all have.
func (m *Market) reserveTokens(tx *database.Tx, posterID string, agent *models.Agent, in ExecuteInput) (*int64, error) {
	if agent.ExecutionMode() != models.ModePrompt {
		return nil, nil //nolint:nilnil // it costs the operator nothing
	}
	limits := m.Settings.Spending
	tokens := limits.MaxTokens + int64(len(agent.SystemPrompt)+len(in.TaskDescription))/bytesPerToken
	if err := tx.AdvisoryLock("spending"); err != nil { // the next one counts this one
		return nil, err
	}
	s, err := m.modelUsage(tx, posterID)
	if err != nil {
		return nil, err
	}
	return &tokens, limits.check(s, tokens, m.now())
}

// check refuses a hire that would be too much. What it would be alone is no
// matter: a hire larger than the limit itself can run when nothing else has.
func (l SpendingLimits) check(s modelUsage, tokens int64, now models.Time) error {
	over := func(used, more, limit int64) bool { return limit > 0 && used > 0 && used+more > limit }
	freed := func(since models.Time) time.Duration {
		return max(since.Add(time.Hour).AsTime().Sub(now.AsTime()), time.Second)
	}
	switch {
	case over(s.runningOfAgent, 1, l.MaxConcurrentPerAgent):
		return models.RateLimitError(busyRetryAfter, "the agent has too many hires under way on the model")
	case over(s.tokensOfAgent, tokens, l.TokensPerHourPerAgent):
		return models.RateLimitError(freed(s.oldestOfAgent), "the agent has used up what its hires may take of the model in an hour")
	case over(s.running, 1, l.MaxConcurrent):
		return errUnavailable(busyRetryAfter, "too many hires are under way on the model")
	case over(s.tokens, tokens, l.TokensPerHour):
		return errUnavailable(freed(s.oldest), "all hires together have used up what they may take of the model in an hour")
	default:
		return nil
	}
}

func errUnavailable(wait time.Duration, what string) *models.Error {
	err := models.RateLimitError(wait, what)
	err.Code = models.Unavailable
	return err
}

// modelUsage reads what limits are held against.
func (m *Market) modelUsage(tx *database.Tx, posterID string) (s modelUsage, err error) {
	err = tx.QueryRow(`SELECT COUNT(*), COUNT(*) FILTER (WHERE poster_id = ?) FROM tasks WHERE tokens IS NOT NULL AND status = 'assigned'`,
		[]any{posterID}, &s.running, &s.runningOfAgent)
	if err != nil {
		return s, err
	}
	err = tx.QueryRow(`SELECT COALESCE(SUM(tokens), 0), COALESCE(SUM(tokens) FILTER (WHERE poster_id = ?), 0),
			COALESCE(MIN(created_at), 0), COALESCE(MIN(created_at) FILTER (WHERE poster_id = ?), 0)
		FROM tasks WHERE tokens IS NOT NULL AND created_at > ?`,
		[]any{posterID, posterID, m.now().Add(-time.Hour)}, &s.tokens, &s.tokensOfAgent, &s.oldest, &s.oldestOfAgent)
	return s, err
}

// recordTokens notes what a run has really taken, when that is known.
func recordTokens(tx *database.Tx, taskID string, tokens *int64) error {
	if tokens == nil || *tokens < 0 { // a gateway may count oddly
		return nil
	}
	return tx.ExecOne("UPDATE tasks SET tokens = ? WHERE id = ?", *tokens, taskID)
}

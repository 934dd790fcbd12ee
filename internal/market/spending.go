package market

import (
	"time"

	"agentmarket.space/server/internal/database"
	"agentmarket.space/server/models"
)

// SpendingLimits bound what hires on the operator's model cost the operator, in total and
// for each hiring agent. 0 means no limit.
type SpendingLimits struct {
	MaxTokens             int64 // of one result
	MaxConcurrent         int64
	MaxConcurrentPerAgent int64
	TokensPerHour         int64
	TokensPerHourPerAgent int64
}

const (
	// bytesPerToken estimates the tokens of a prompt until the model has counted them. It
	// estimates too many: a token of English text has about four letters.
	bytesPerToken = 3
	// busyRetryAfter is the Retry-After while too many hires run. Runs take seconds.
	busyRetryAfter = 5 * time.Second
)

// modelUsage is the usage of the operator's model, by all agents and by one: the running
// hires, and the tokens of the last hour.
type modelUsage struct {
	running, runningOfAgent int64
	tokens, tokensOfAgent   int64
	oldest, oldestOfAgent   models.Time // start of the oldest hire of the hour; 0 for none
}

// reserveTokens returns the tokens that a hire counts with until it has run, nil if it does
// not run on the operator's model. RATE_LIMITED if its poster has used up the limits of
// one agent, UNAVAILABLE if all agents together have used up the total.
func (m *Market) reserveTokens(tx *database.Tx, posterID string, agent *models.Agent, in ExecuteInput) (*int64, error) {
	if agent.ExecutionMode() != models.ModePrompt {
		return nil, nil //nolint:nilnil // it costs the operator nothing
	}
	limits := m.Settings.Spending
	tokens := limits.MaxTokens + int64(len(agent.SystemPrompt)+len(in.TaskDescription))/bytesPerToken
	if err := tx.AdvisoryLock("spending"); err != nil { // so that the next hire counts this one
		return nil, err
	}
	s, err := m.modelUsage(tx, posterID)
	if err != nil {
		return nil, err
	}
	return &tokens, limits.check(s, tokens, m.timestamp())
}

// check rejects a hire that exceeds the limits together with the hires before it. A
// single hire that is larger than the limit can run if no other hire counts.
func (l SpendingLimits) check(s modelUsage, tokens int64, now models.Time) error {
	exceeds := func(used, more, limit int64) bool { return limit > 0 && used > 0 && used+more > limit }
	retryIn := func(since models.Time) time.Duration {
		return max(since.Add(time.Hour).AsTime().Sub(now.AsTime()), time.Second)
	}
	switch {
	case exceeds(s.runningOfAgent, 1, l.MaxConcurrentPerAgent):
		return models.RateLimitError(busyRetryAfter, "the agent has too many running hires on the model")
	case exceeds(s.tokensOfAgent, tokens, l.TokensPerHourPerAgent):
		return models.RateLimitError(retryIn(s.oldestOfAgent), "the agent has used its hourly token budget for the model")
	case exceeds(s.running, 1, l.MaxConcurrent):
		return unavailableError(busyRetryAfter, "too many hires are running on the model")
	case exceeds(s.tokens, tokens, l.TokensPerHour):
		return unavailableError(retryIn(s.oldest), "all agents together have used the hourly token budget for the model")
	default:
		return nil
	}
}

func unavailableError(wait time.Duration, message string) *models.Error {
	err := models.RateLimitError(wait, message)
	err.Code = models.Unavailable
	return err
}

// modelUsage reads the current usage.
func (m *Market) modelUsage(tx *database.Tx, posterID string) (s modelUsage, err error) {
	err = tx.QueryRow(`SELECT COUNT(*), COUNT(*) FILTER (WHERE poster_id = ?) FROM tasks WHERE tokens IS NOT NULL AND status = 'assigned'`,
		[]any{posterID}, &s.running, &s.runningOfAgent)
	if err != nil {
		return s, err
	}
	err = tx.QueryRow(`SELECT COALESCE(SUM(tokens), 0), COALESCE(SUM(tokens) FILTER (WHERE poster_id = ?), 0),
			COALESCE(MIN(created_at), 0), COALESCE(MIN(created_at) FILTER (WHERE poster_id = ?), 0)
		FROM tasks WHERE tokens IS NOT NULL AND created_at > ?`,
		[]any{posterID, posterID, m.timestamp().Add(-time.Hour)}, &s.tokens, &s.tokensOfAgent, &s.oldest, &s.oldestOfAgent)
	return s, err
}

// recordTokens stores the tokens that a run has used, if they are known.
func recordTokens(tx *database.Tx, taskID string, tokens *int64) error {
	if tokens == nil || *tokens < 0 { // a gateway can report a negative number
		return nil
	}
	return tx.ExecOne("UPDATE tasks SET tokens = ? WHERE id = ?", *tokens, taskID)
}

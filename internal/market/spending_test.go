package market_test

import (
	"sync/atomic"
	"testing"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// newLimitedHireBundle opens a market with spending limits, whose agent runs on the model.
func newLimitedHireBundle(t *testing.T, limits market.SpendingLimits) *hireBundle {
	t.Helper()
	h := newHireBundle(t)
	h.Settings.StartingCredits = 1000
	h.poster = h.NewAgent()
	h.Settings.Spending = limits
	testutil.Must(t, h.setSystemPrompt(t, h.worker))
	return h
}

// setSystemPrompt replaces an agent's endpoint with a system prompt.
func (h *hireBundle) setSystemPrompt(t *testing.T, agent auth.Actor) error {
	t.Helper()
	_, err := h.UpdateAgent(t.Context(), agent, market.AgentChanges{EndpointURL: new(""), SystemPrompt: new("You are terse.")})
	return err
}

// startHireAs starts a hire by another poster.
func (h *hireBundle) startHireAs(t *testing.T, poster auth.Actor) error {
	t.Helper()
	_, err := h.StartExecution(t.Context(), poster, market.StartExecutionInput{AgentID: h.worker.AgentID, TaskDescription: "D", Budget: 15})
	return err
}

// wantRetryAfter checks the code and the Retry-After of an error.
func wantRetryAfter(t *testing.T, err error, code models.Code, wait time.Duration) {
	t.Helper()
	wantCode(t, err, code)
	if got := models.AsError(err).RetryAfter; got != wait {
		t.Errorf("Retry-After is %s, want %s", got, wait)
	}
}

func replyWithTokens(tokens int64) agentReply {
	return agentReply{RunResult: market.RunResult{Result: "done", Tokens: &tokens}}
}

func TestSpending(t *testing.T) {
	t.Parallel()
	t.Run("concurrent hires of one agent and of all agents are limited", func(t *testing.T) {
		t.Parallel()
		h := newLimitedHireBundle(t, market.SpendingLimits{MaxTokens: 10, MaxConcurrentPerAgent: 2, MaxConcurrent: 3})
		var started, rejected atomic.Int32
		runConcurrently(10, func(int) {
			err := h.startHireAs(t, h.poster)
			if err == nil {
				started.Add(1)
				return
			}
			rejected.Add(1)
			wantRetryAfter(t, err, models.RateLimited, 5*time.Second)
		})
		if started.Load() != 2 || rejected.Load() != 8 {
			t.Errorf("%d started and %d rejected, want 2 and 8", started.Load(), rejected.Load())
		}
		testutil.Must(t, h.startHireAs(t, h.NewAgent()))
		wantRetryAfter(t, h.startHireAs(t, h.NewAgent()), models.Unavailable, 5*time.Second)
		wantBalances(t, h.Bundle, h.poster, 970, 0) // rejected hires cost nothing
		for range 3 {
			h.replies <- doneReply()
		}
		h.WaitExecutions(t.Context())
		testutil.Must(t, h.startHireAs(t, h.NewAgent()))
		h.replies <- doneReply()
		h.WaitExecutions(t.Context())
		h.VerifyLedger()
	})
	t.Run("tokens per hour are limited by actual usage", func(t *testing.T) {
		t.Parallel()
		h := newLimitedHireBundle(t, market.SpendingLimits{MaxTokens: 100, TokensPerHourPerAgent: 250, TokensPerHour: 400})
		run := func(poster auth.Actor, reply agentReply) {
			t.Helper()
			h.replies <- reply
			testutil.Must(t, h.startHireAs(t, poster))
			h.WaitExecutions(t.Context())
		}
		run(h.poster, replyWithTokens(20))
		h.Clock.Advance(10 * time.Minute)
		run(h.poster, replyWithTokens(125)) // 145 used, and a hire reserves 104
		run(h.poster, agentReply{err: models.Errorf(models.ExecutionTimeout, "usage unknown")})
		wantRetryAfter(t, h.startHireAs(t, h.poster), models.RateLimited, 50*time.Minute)
		other := h.NewAgent()
		run(other, replyWithTokens(50)) // 299 used by all agents
		wantRetryAfter(t, h.startHireAs(t, other), models.Unavailable, 50*time.Minute)
		h.Clock.Advance(50 * time.Minute)
		run(other, replyWithTokens(0)) // the first hire, of 20 tokens, is over an hour old
		wantRetryAfter(t, h.startHireAs(t, h.poster), models.RateLimited, 10*time.Minute)
		h.Clock.Advance(10 * time.Minute)
		run(h.poster, replyWithTokens(20))
		h.VerifyLedger()
	})
	t.Run("usage counts after a crash and in the background", func(t *testing.T) {
		t.Parallel()
		h := newLimitedHireBundle(t, market.SpendingLimits{MaxTokens: 100, MaxConcurrentPerAgent: 1, TokensPerHourPerAgent: 250})
		testutil.Must(t, h.startHireAs(t, h.poster))
		<-h.calls
		wantRetryAfter(t, h.startHireAs(t, h.poster), models.RateLimited, 5*time.Second)
		h.removeReplica(t)
		testutil.Must(t, h.Sweep(t.Context()))
		h.replies <- replyWithTokens(120)
		h.WaitExecutions(t.Context())
		wantBalances(t, h.Bundle, h.poster, 1000, 0)
		out, err := h.startHire(t, "")
		testutil.Must(t, err)
		<-h.calls
		_, err = h.Cancel(t.Context(), h.poster, out.Task.ID) // its text could have been read already
		wantCode(t, err, models.Conflict)
		h.replies <- replyWithTokens(131)
		h.WaitExecutions(t.Context())
		wantRetryAfter(t, h.startHireAs(t, h.poster), models.RateLimited, time.Hour)
		h.VerifyLedger()
	})
	t.Run("agents with an endpoint, and a single hire above the limit, are not limited", func(t *testing.T) {
		t.Parallel()
		h := newLimitedHireBundle(t, market.SpendingLimits{MaxTokens: 100, MaxConcurrent: 1, MaxConcurrentPerAgent: 1, TokensPerHour: 50, TokensPerHourPerAgent: 50})
		testutil.Must(t, h.startHireAs(t, h.poster))
		withEndpoint := h.NewAgent()
		for range 3 {
			_, err := h.StartExecution(t.Context(), h.poster, market.StartExecutionInput{AgentID: withEndpoint.AgentID, TaskDescription: "D", Budget: 15})
			testutil.Must(t, err)
		}
		for range 4 {
			h.replies <- doneReply()
		}
		h.WaitExecutions(t.Context())
		h.VerifyLedger()
	})
}

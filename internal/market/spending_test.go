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

// newLimitedHireBundle is a market whose agent runs on the model, with limits.
func newLimitedHireBundle(t *testing.T, limits market.SpendingLimits) *hireBundle {
	t.Helper()
	h := newHireBundle(t)
	h.Settings.StartingCredits = 1000
	h.poster = h.NewAgent()
	h.Settings.Spending = limits
	testutil.Must(t, h.setSystemPrompt(t, h.worker))
	return h
}

// setSystemPrompt gives an agent a prompt instead of its endpoint.
func (h *hireBundle) setSystemPrompt(t *testing.T, agent auth.Actor) error {
	t.Helper()
	_, err := h.UpdateAgent(t.Context(), agent, market.AgentChanges{EndpointURL: new(""), SystemPrompt: new("You are terse.")})
	return err
}

// startHireAs has another agent hire.
func (h *hireBundle) startHireAs(t *testing.T, poster auth.Actor) error {
	t.Helper()
	_, err := h.StartExecution(t.Context(), poster, market.StartExecutionInput{AgentID: h.worker.AgentID, TaskDescription: "D", Budget: 15})
	return err
}

// wantRetryAfter wants a refusal that says when to try again.
func wantRetryAfter(t *testing.T, err error, code models.Code, wait time.Duration) {
	t.Helper()
	wantCode(t, err, code)
	if got := models.AsError(err).RetryAfter; got != wait {
		t.Errorf("to be tried again in %s, want %s", got, wait)
	}
}

func replyWithTokens(tokens int64) agentReply {
	return agentReply{RunResult: market.RunResult{Result: "done", Tokens: &tokens}}
}

func TestSpending(t *testing.T) {
	t.Parallel()
	t.Run("at once, of one agent and of all, however many hire together", func(t *testing.T) {
		t.Parallel()
		h := newLimitedHireBundle(t, market.SpendingLimits{MaxTokens: 10, MaxConcurrentPerAgent: 2, MaxConcurrent: 3})
		var started, refused atomic.Int32
		runConcurrently(10, func(int) {
			err := h.startHireAs(t, h.poster)
			if err == nil {
				started.Add(1)
				return
			}
			refused.Add(1)
			wantRetryAfter(t, err, models.RateLimited, 5*time.Second)
		})
		if started.Load() != 2 || refused.Load() != 8 {
			t.Errorf("%d started and %d refused, want 2 and 8", started.Load(), refused.Load())
		}
		testutil.Must(t, h.startHireAs(t, h.NewAgent()))
		wantRetryAfter(t, h.startHireAs(t, h.NewAgent()), models.Unavailable, 5*time.Second)
		wantBalances(t, h.Bundle, h.poster, 970, 0) // who is refused pays nothing
		for range 3 {
			h.replies <- doneReply()
		}
		h.WaitExecutions(t.Context())
		testutil.Must(t, h.startHireAs(t, h.NewAgent()))
		h.replies <- doneReply()
		h.WaitExecutions(t.Context())
		h.VerifyLedger()
	})
	t.Run("in an hour, by what was really taken", func(t *testing.T) {
		t.Parallel()
		h := newLimitedHireBundle(t, market.SpendingLimits{MaxTokens: 100, TokensPerHourPerAgent: 250, TokensPerHour: 400})
		run := func(poster auth.Actor, o agentReply) {
			t.Helper()
			h.replies <- o
			testutil.Must(t, h.startHireAs(t, poster))
			h.WaitExecutions(t.Context())
		}
		run(h.poster, replyWithTokens(20))
		h.Clock.Advance(10 * time.Minute)
		run(h.poster, replyWithTokens(125)) // 145: another may take 104
		run(h.poster, agentReply{err: models.Errorf(models.ExecutionTimeout, "nobody knows what it took")})
		wantRetryAfter(t, h.startHireAs(t, h.poster), models.RateLimited, 50*time.Minute)
		other := h.NewAgent()
		run(other, replyWithTokens(50)) // 299 of all
		wantRetryAfter(t, h.startHireAs(t, other), models.Unavailable, 50*time.Minute)
		h.Clock.Advance(50 * time.Minute)
		run(other, replyWithTokens(0)) // the first of 20 is forgotten
		wantRetryAfter(t, h.startHireAs(t, h.poster), models.RateLimited, 10*time.Minute)
		h.Clock.Advance(10 * time.Minute)
		run(h.poster, replyWithTokens(20))
		h.VerifyLedger()
	})
	t.Run("is counted when nobody waits any more: after a crash and in the background", func(t *testing.T) {
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
		_, err = h.Cancel(t.Context(), h.poster, out.Task.ID) // or it could be read for nothing
		wantCode(t, err, models.Conflict)
		h.replies <- replyWithTokens(131)
		h.WaitExecutions(t.Context())
		wantRetryAfter(t, h.startHireAs(t, h.poster), models.RateLimited, time.Hour)
		h.VerifyLedger()
	})
	t.Run("does not bound agents with an endpoint, nor one hire larger than the limit", func(t *testing.T) {
		t.Parallel()
		h := newLimitedHireBundle(t, market.SpendingLimits{MaxTokens: 100, MaxConcurrent: 1, MaxConcurrentPerAgent: 1, TokensPerHour: 50, TokensPerHourPerAgent: 50})
		testutil.Must(t, h.startHireAs(t, h.poster))
		elsewhere := h.NewAgent()
		for range 3 {
			_, err := h.StartExecution(t.Context(), h.poster, market.StartExecutionInput{AgentID: elsewhere.AgentID, TaskDescription: "D", Budget: 15})
			testutil.Must(t, err)
		}
		for range 4 {
			h.replies <- doneReply()
		}
		h.WaitExecutions(t.Context())
		h.VerifyLedger()
	})
}

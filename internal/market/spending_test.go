package market_test

import (
	"sync/atomic"
	"testing"
	"time"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/market"
	"agentmarket.space/server/models"
)

// newSpending is a market whose agent runs on the model, with limits.
func newSpending(t *testing.T, limits market.Spending) *hiring {
	t.Helper()
	h := newHiring(t)
	h.Settings.StartingCredits = 1000
	h.poster = h.Agent()
	h.Settings.Spending = limits
	must(t, h.prompted(t, h.worker))
	return h
}

// prompted gives an agent a prompt instead of its endpoint.
func (h *hiring) prompted(t *testing.T, agent auth.Actor) error {
	t.Helper()
	_, err := h.UpdateAgent(t.Context(), agent, market.AgentChanges{EndpointURL: new(""), SystemPrompt: new("You are terse.")})
	return err
}

// by has another agent hire.
func (h *hiring) by(t *testing.T, poster auth.Actor) error {
	t.Helper()
	_, err := h.StartExecution(t.Context(), poster, market.StartExecutionInput{AgentID: h.worker.AgentID, TaskDescription: "D", Budget: 15})
	return err
}

// wantWait wants a refusal that says when to try again.
func wantWait(t *testing.T, err error, code models.Code, wait time.Duration) {
	t.Helper()
	wantCode(t, err, code)
	if got := models.AsError(err).RetryAfter; got != wait {
		t.Errorf("to be tried again in %s, want %s", got, wait)
	}
}

func took(tokens int64) outcome {
	return outcome{Outcome: market.Outcome{Result: "done", Tokens: &tokens}}
}

func TestSpending(t *testing.T) {
	t.Parallel()
	t.Run("at once, of one agent and of all, however many hire together", func(t *testing.T) {
		t.Parallel()
		h := newSpending(t, market.Spending{MaxTokens: 10, AtOnceEach: 2, AtOnce: 3})
		var started, refused atomic.Int32
		together(10, func(int) {
			err := h.by(t, h.poster)
			if err == nil {
				started.Add(1)
				return
			}
			refused.Add(1)
			wantWait(t, err, models.RateLimited, 5*time.Second)
		})
		if started.Load() != 2 || refused.Load() != 8 {
			t.Errorf("%d started and %d refused, want 2 and 8", started.Load(), refused.Load())
		}
		must(t, h.by(t, h.Agent()))
		wantWait(t, h.by(t, h.Agent()), models.Unavailable, 5*time.Second)
		wantBalances(t, h.Bundle, h.poster, 970, 0) // who is refused pays nothing
		for range 3 {
			h.answer <- done()
		}
		h.Wait(t.Context())
		must(t, h.by(t, h.Agent()))
		h.answer <- done()
		h.Wait(t.Context())
		h.Verified()
	})
	t.Run("in an hour, by what was really taken", func(t *testing.T) {
		t.Parallel()
		h := newSpending(t, market.Spending{MaxTokens: 100, TokensAnHourEach: 250, TokensAnHour: 400})
		run := func(poster auth.Actor, o outcome) {
			t.Helper()
			h.answer <- o
			must(t, h.by(t, poster))
			h.Wait(t.Context())
		}
		run(h.poster, took(20))
		h.Clock.Advance(10 * time.Minute)
		run(h.poster, took(125)) // 145: another may take 104
		run(h.poster, outcome{err: models.Errorf(models.ExecutionTimeout, "nobody knows what it took")})
		wantWait(t, h.by(t, h.poster), models.RateLimited, 50*time.Minute)
		other := h.Agent()
		run(other, took(50)) // 299 of all
		wantWait(t, h.by(t, other), models.Unavailable, 50*time.Minute)
		h.Clock.Advance(50 * time.Minute)
		run(other, took(0)) // the first of 20 is forgotten
		wantWait(t, h.by(t, h.poster), models.RateLimited, 10*time.Minute)
		h.Clock.Advance(10 * time.Minute)
		run(h.poster, took(20))
		h.Verified()
	})
	t.Run("is counted when nobody waits any more: after a crash and in the background", func(t *testing.T) {
		t.Parallel()
		h := newSpending(t, market.Spending{MaxTokens: 100, AtOnceEach: 1, TokensAnHourEach: 250})
		must(t, h.by(t, h.poster))
		<-h.called
		wantWait(t, h.by(t, h.poster), models.RateLimited, 5*time.Second)
		h.dies(t)
		must(t, h.Sweep(t.Context()))
		h.answer <- took(120)
		h.Wait(t.Context())
		wantBalances(t, h.Bundle, h.poster, 1000, 0)
		out, err := h.starts(t, "")
		must(t, err)
		<-h.called
		_, err = h.Cancel(t.Context(), h.poster, out.Task.ID) // or it could be read for nothing
		wantCode(t, err, models.Conflict)
		h.answer <- took(131)
		h.Wait(t.Context())
		wantWait(t, h.by(t, h.poster), models.RateLimited, time.Hour)
		h.Verified()
	})
	t.Run("does not bound agents with an endpoint, nor one hire larger than the limit", func(t *testing.T) {
		t.Parallel()
		h := newSpending(t, market.Spending{MaxTokens: 100, AtOnce: 1, AtOnceEach: 1, TokensAnHour: 50, TokensAnHourEach: 50})
		must(t, h.by(t, h.poster))
		elsewhere := h.Agent()
		for range 3 {
			_, err := h.StartExecution(t.Context(), h.poster, market.StartExecutionInput{AgentID: elsewhere.AgentID, TaskDescription: "D", Budget: 15})
			must(t, err)
		}
		for range 4 {
			h.answer <- done()
		}
		h.Wait(t.Context())
		h.Verified()
	})
}

package webhooks

import (
	"net/http"
	"testing"
	"time"

	"pgregory.net/rapid"

	"agentmarket.space/server/internal/test/testutil"
)

func TestParseRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 13, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		status int
		header string
		want   time.Duration
	}{
		"seconds":              {429, "120", 2 * time.Minute},
		"seconds, unavailable": {503, " 7 ", 7 * time.Second},
		"a date":               {503, "Fri, 13 Mar 2026 12:10:00 GMT", 10 * time.Minute},
		"a past date":          {503, "Fri, 13 Mar 2026 11:10:00 GMT", 0},
		"another status":       {500, "120", 0},
		"no header":            {429, "", 0},
		"nonsense":             {429, "soon", 0},
		"negative":             {429, "-5", 0},
		"overflows a duration": {429, "9223372036854775807", 24 * time.Hour},
		"larger than an int":   {429, "99999999999999999999", 24 * time.Hour},
		"smaller than an int":  {429, "-99999999999999999999", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testutil.Equal(t, "delay", parseRetryAfter(c.status, c.header, now), c.want)
		})
	}
}

func TestRetryDelay(t *testing.T) {
	t.Parallel()
	schedule := DefaultRetries()
	for name, c := range map[string]struct {
		failed    int
		random    float64
		requested time.Duration
		want      time.Duration
	}{
		"first step":                   {1, 0.5, 0, 5 * time.Second},
		"last step":                    {7, 0.5, 0, 10 * time.Hour},
		"past the schedule":            {9, 0.5, 0, 10 * time.Hour},
		"shortened by a fifth":         {2, 0, 0, 4 * time.Minute},
		"requested less than the step": {2, 0.5, time.Second, 5 * time.Minute},
		"requested more than the step": {1, 0.5, time.Hour, time.Hour},
		"requested more than a day":    {1, 0.5, 1000 * time.Hour, 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testutil.Equal(t, "delay", retryDelay(schedule, c.failed, c.random, c.requested), c.want)
		})
	}
}

func TestRetryDelay_staysWithinBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		schedule := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.Int64Range(0, int64(72*time.Hour)).Draw(t, "step"))
		}), 1, 10).Draw(t, "schedule")
		failed := rapid.IntRange(1, 12).Draw(t, "failed")
		random := rapid.Float64Range(0, 0.999999).Draw(t, "random")
		requested := parseRetryAfter(http.StatusTooManyRequests, rapid.StringMatching(`-?[0-9]{0,20}`).Draw(t, "header"), time.Unix(0, 0))

		got := retryDelay(schedule, failed, random, requested)
		step := float64(schedule[min(failed, len(schedule))-1])
		if float64(got) < step*0.8-1 {
			t.Errorf("delay %s: less than four fifths of the step", got)
		}
		if float64(got) > max(step*1.2, float64(24*time.Hour)) {
			t.Errorf("delay %s: more than six fifths of the step and more than a day", got)
		}
		if requested == 0 && float64(got) > step*1.2+1 {
			t.Errorf("delay %s: more than six fifths of the step", got)
		}
	})
}

package webhooks

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// maxRetryAfter is how long a receiver can put us off.
	maxRetryAfter = 24 * time.Hour
	// jitter is by how much a wait is shortened or lengthened at most.
	jitter = 0.2
)

// retryDelay returns how long to wait after the given failed try, counted from 1.
// Later tries than the schedule knows wait as long as its last. What the
// receiver asked for is honoured when it is longer, up to a day; random is in
// [0, 1).
func retryDelay(schedule []time.Duration, failed int, random float64, asked time.Duration) time.Duration {
	step := schedule[min(max(failed, 1), len(schedule))-1]
	spread := time.Duration(float64(step) * (1 - jitter + 2*jitter*random))
	return max(spread, min(asked, maxRetryAfter))
}

// parseRetryAfter returns how long an answer asks to be left alone: its Retry-After,
// in seconds or as a date, when its status is 429 or 503; else 0.
func parseRetryAfter(status int, header string, now time.Time) time.Duration {
	if status != http.StatusTooManyRequests && status != http.StatusServiceUnavailable {
		return 0
	}
	header = strings.TrimSpace(header)
	if seconds, err := strconv.Atoi(header); err == nil || errors.Is(err, strconv.ErrRange) { // then it is the nearest that there is
		return time.Duration(min(max(seconds, 0), int(maxRetryAfter/time.Second))) * time.Second
	}
	if date, err := http.ParseTime(header); err == nil {
		return max(date.Sub(now), 0)
	}
	return 0
}

package webhooks

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// maxRetryAfter limits the delay that a receiver can request.
	maxRetryAfter = 24 * time.Hour
	// jitter is the largest random change of a delay, as a fraction of it.
	jitter = 0.2
)

// retryDelay returns the delay after failed attempt number failed, counted from
// 1. Past the end of schedule it uses the last entry. A longer requested delay
// wins, up to maxRetryAfter. random is in [0, 1).
func retryDelay(schedule []time.Duration, failed int, random float64, requested time.Duration) time.Duration {
	step := schedule[min(max(failed, 1), len(schedule))-1]
	delay := time.Duration(float64(step) * (1 - jitter + 2*jitter*random))
	return max(delay, min(requested, maxRetryAfter))
}

// parseRetryAfter returns the delay that a 429 or 503 response requests in its
// Retry-After header, in seconds or as a date. It returns 0 for other responses.
func parseRetryAfter(status int, header string, now time.Time) time.Duration {
	if status != http.StatusTooManyRequests && status != http.StatusServiceUnavailable {
		return 0
	}
	header = strings.TrimSpace(header)
	if seconds, err := strconv.Atoi(header); err == nil || errors.Is(err, strconv.ErrRange) { // on ErrRange, seconds is the nearest int
		return time.Duration(min(max(seconds, 0), int(maxRetryAfter/time.Second))) * time.Second
	}
	if date, err := http.ParseTime(header); err == nil {
		return max(date.Sub(now), 0)
	}
	return 0
}

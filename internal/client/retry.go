package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/Khan/genqlient/graphql"
	"github.com/google/uuid"
)

const (
	// requestTimeout bounds a request. A hire waits for the hired agent.
	requestTimeout = 2 * time.Minute
	// maxAttempts is how often retryingDoer sends a request. All attempts share an
	// Idempotency-Key, so the server executes it at most once.
	maxAttempts = 3
	retryPause  = 200 * time.Millisecond
	// The limits of backoff.
	minBackoff = 500 * time.Millisecond
	maxBackoff = 10 * time.Second
)

// NewClient returns a GraphQL client for the server at a base URL. It authenticates
// with key unless key is empty. It retries requests that get no response.
func NewClient(url, key string) graphql.Client {
	return graphql.NewClient(graphqlURL(url), &retryingDoer{key: key, http: &http.Client{Timeout: requestTimeout, CheckRedirect: rejectRedirect}})
}

// rejectRedirect stops at redirects, which would forward the API key.
func rejectRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// retryingDoer sends requests with the API key and an Idempotency-Key. It retries
// requests without a response.
type retryingDoer struct {
	key  string
	http *http.Client
}

// Do implements graphql.Doer.
func (d *retryingDoer) Do(r *http.Request) (*http.Response, error) {
	if d.key != "" {
		r.Header.Set("X-Api-Key", d.key)
	}
	idempotencyKey, ok := r.Context().Value(idempotencyContextKey{}).(string)
	if !ok {
		idempotencyKey = uuid.NewString()
	}
	r.Header.Set("Idempotency-Key", idempotencyKey)
	for attempt := 1; ; attempt++ {
		response, err := d.http.Do(r) //nolint:gosec // the user chooses the URL
		retry := err != nil || response.StatusCode == http.StatusServiceUnavailable
		if !retry || attempt == maxAttempts || connectionRefused(err) || !Sleep(r.Context(), time.Duration(attempt)*retryPause) {
			return response, err //nolint:wrapcheck // genqlient's contract
		}
		if err == nil {
			_ = response.Body.Close()
		}
		if r.Body, err = r.GetBody(); err != nil {
			return nil, fmt.Errorf("retry the request: %w", err)
		}
	}
}

type idempotencyContextKey struct{}

// retryUntilDone calls do until the server executes or rejects the operation, or
// ctx is done. All calls share one Idempotency-Key, so the operation is executed at
// most once.
func retryUntilDone[T any](ctx context.Context, do func(context.Context) (*T, error)) (*T, error) {
	ctx = context.WithValue(ctx, idempotencyContextKey{}, uuid.NewString())
	for pause := (backoff{}); ; {
		response, err := do(ctx)
		if err == nil {
			return response, nil
		}
		switch CodeOf(err) {
		case "", "UNAVAILABLE", "RATE_LIMITED", "INTERNAL":
			if pause.wait(ctx) {
				continue
			}
		}
		return nil, err
	}
}

// backoff is an exponential backoff between minBackoff and maxBackoff. The zero
// value starts with minBackoff.
type backoff struct{ next time.Duration }

// wait blocks until the next attempt is due, and reports whether ctx is still active.
func (b *backoff) wait(ctx context.Context) bool {
	d := max(b.next, minBackoff)
	b.next = min(2*d, maxBackoff)
	return Sleep(ctx, d)
}

// reset starts over with minBackoff, after a success.
func (b *backoff) reset() { b.next = 0 }

// Sleep waits for d, and reports whether ctx is still active.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// connectionRefused reports whether err is a failure to connect.
func connectionRefused(err error) bool {
	operation, ok := errors.AsType[*net.OpError](err)
	return ok && operation.Op == "dial"
}

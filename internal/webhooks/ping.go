package webhooks

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"agentmarket.space/server/models"
)

const (
	// pingEvent is the event name of a ping.
	pingEvent = "ping"
	// maxPingTimeout limits a ping, even if Options.Timeout is longer: the caller waits
	// for the result.
	maxPingTimeout = 15 * time.Second
)

// pingPayload is the body of a ping. The order of the fields is the order of the
// JSON keys.
type pingPayload struct {
	Event          string     `json:"event"`
	Ping           pingDetail `json:"ping"`
	MarketplaceURL string     `json:"marketplace_url"`
}

type pingDetail struct {
	ID        string `json:"id"`
	CreatedAt string `json:"created_at"`
}

// PingResult is the result of a ping.
type PingResult struct {
	RequestBody string
	Attempt     models.Attempt
}

// Ping sends a signed test request to the agent's webhook and returns the result.
// It stores nothing, is never retried and does not affect the status of the
// webhook, which may be suspended. It returns CONFLICT when the agent has no
// webhook and when no slot for a request to it is free.
func (w *Webhooks) Ping(ctx context.Context, agentID string) (PingResult, error) {
	hook, err := w.Get(ctx, agentID)
	if models.CodeOf(err) == models.NotFound {
		return PingResult{}, models.Errorf(models.Conflict, "no webhook is set; set one before you ping it")
	}
	if err != nil {
		return PingResult{}, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return PingResult{}, fmt.Errorf("ping: %w", err)
	}
	body, err := encodePayload(pingPayload{
		Event: pingEvent, MarketplaceURL: w.marketplaceURL,
		Ping: pingDetail{ID: id.String(), CreatedAt: w.now().UTC().Format(time.RFC3339)},
	})
	if err != nil {
		return PingResult{}, err
	}
	s, _, ok := w.limiter.acquire(ctx, agentID, false)
	if !ok {
		return PingResult{}, models.Errorf(models.Conflict, "%d requests to the webhook are running; try again later", maxPerEndpoint)
	}
	defer w.limiter.release(s)
	outcome, err := w.send(ctx, request{
		agentID: agentID, url: hook.URL, id: id.String(), event: pingEvent, attempt: 1, body: body, timeout: min(w.timeout, maxPingTimeout),
	})
	if err != nil {
		return PingResult{}, err
	}
	return PingResult{RequestBody: string(body), Attempt: *outcome.attemptRow(id.String(), 1)}, nil
}

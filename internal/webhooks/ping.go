package webhooks

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"agentmarket.space/server/models"
)

const (
	// pingEvent is what a ping says it is.
	pingEvent = "ping"
	// maxPingTimeout is how long a ping takes at most, whatever a try may: its owner waits.
	maxPingTimeout = 15 * time.Second
)

// pingPayload is what is sent when an owner asks for it. The order of the fields is the
// order of the keys.
type pingPayload struct {
	Event          string     `json:"event"`
	Ping           pingDetail `json:"ping"`
	MarketplaceURL string     `json:"marketplace_url"`
}

type pingDetail struct {
	ID        string `json:"id"`
	CreatedAt string `json:"created_at"`
}

// PingResult is what came of a ping.
type PingResult struct {
	RequestBody string // as it was sent
	Attempt     models.Attempt
}

// Ping sends the agent a ping now, signed like everything else, and returns what
// came of it. Nothing is written down: it is no delivery, is not tried again, and
// counts neither for nor against the webhook, which may be suspended. CONFLICT
// without a webhook, and while as many requests to it are under way as may be.
func (w *Webhooks) Ping(ctx context.Context, agentID string) (PingResult, error) {
	hook, err := w.Get(ctx, agentID)
	if models.CodeOf(err) == models.NotFound {
		return PingResult{}, models.Errorf(models.Conflict, "no webhook is set: there is nothing to ping")
	}
	if err != nil {
		return PingResult{}, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return PingResult{}, fmt.Errorf("ping: %w", err)
	}
	content, err := encodePayload(pingPayload{
		Event: pingEvent, MarketplaceURL: w.marketplaceURL,
		Ping: pingDetail{ID: id.String(), CreatedAt: w.now().UTC().Format(time.RFC3339)},
	})
	if err != nil {
		return PingResult{}, err
	}
	taken, _, ok := w.limiter.acquire(ctx, agentID, false)
	if !ok {
		return PingResult{}, models.Errorf(models.Conflict, "%d requests to the webhook are under way; try again", maxPerEndpoint)
	}
	defer w.limiter.release(taken)
	answer, err := w.send(ctx, request{
		agentID: agentID, url: hook.URL, id: id.String(), event: pingEvent, attempt: 1, body: content, timeout: min(w.timeout, maxPingTimeout),
	})
	if err != nil {
		return PingResult{}, err
	}
	return PingResult{RequestBody: string(content), Attempt: *answer.attemptRow(id.String(), 1)}, nil
}

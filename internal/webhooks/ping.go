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
	// pingTime is how long a ping takes at most, whatever a try may: its owner waits.
	pingTime = 15 * time.Second
)

// ping is what is sent when an owner asks for it. The order of the fields is the
// order of the keys.
type ping struct {
	Event          string     `json:"event"`
	Ping           pingDetail `json:"ping"`
	MarketplaceURL string     `json:"marketplace_url"`
}

type pingDetail struct {
	ID        string `json:"id"`
	CreatedAt string `json:"created_at"`
}

// Pinged is what came of a ping.
type Pinged struct {
	Body    string // as it was sent
	Attempt models.Attempt
}

// Ping sends the agent a ping now, signed like everything else, and returns what
// came of it. Nothing is written down: it is no delivery, is not tried again, and
// counts neither for nor against the webhook, which may be suspended. CONFLICT
// without a webhook, and while as many requests to it are under way as may be.
func (w *Webhooks) Ping(ctx context.Context, agentID string) (Pinged, error) {
	hook, err := w.Get(ctx, agentID)
	if models.CodeOf(err) == models.NotFound {
		return Pinged{}, models.Errorf(models.Conflict, "no webhook is set: there is nothing to ping")
	}
	if err != nil {
		return Pinged{}, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Pinged{}, fmt.Errorf("ping: %w", err)
	}
	content, err := render(ping{
		Event: pingEvent, MarketplaceURL: w.marketplaceURL,
		Ping: pingDetail{ID: id.String(), CreatedAt: w.now().UTC().Format(time.RFC3339)},
	})
	if err != nil {
		return Pinged{}, err
	}
	taken, _, ok := w.slots.take(ctx, agentID, false)
	if !ok {
		return Pinged{}, models.Errorf(models.Conflict, "%d requests to the webhook are under way; try again", perEndpoint)
	}
	defer w.slots.free(taken)
	answer, err := w.send(ctx, request{
		agentID: agentID, url: hook.URL, id: id.String(), event: pingEvent, number: 1, content: content, limit: min(w.timeout, pingTime),
	})
	if err != nil {
		return Pinged{}, err
	}
	return Pinged{Body: string(content), Attempt: *answer.attempt(id.String(), 1)}, nil
}

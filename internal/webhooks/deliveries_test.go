package webhooks

import (
	"testing"

	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

func TestDeliveries(t *testing.T) {
	t.Parallel()
	b := open(t, settings{})
	agent, _ := b.addSubscriber(t, "https://bot.example/hook", "research")
	poster := b.addAgent(t)
	for range 3 {
		b.matchEvent(t, b.post(t, poster, "research"))
	}

	first, err := b.Deliveries(t.Context(), agent, nil, 2, "")
	testutil.Must(t, err)
	testutil.Equal(t, "page", len(first), 2)
	testutil.Equal(t, "event of the newest", first[0].EventID, 3)
	rest, err := b.Deliveries(t.Context(), agent, []models.DeliveryStatus{models.DeliveryPending}, 2, first[1].ID)
	testutil.Must(t, err)
	testutil.Equal(t, "rest", len(rest), 1)
	testutil.Equal(t, "event of the oldest", rest[0].EventID, 1)
	none, err := b.Deliveries(t.Context(), agent, []models.DeliveryStatus{models.DeliveryFailed}, 2, "")
	testutil.Must(t, err)
	testutil.Equal(t, "failed", len(none), 0)
}

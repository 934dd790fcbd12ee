package webhooks

import (
	"net/http"
	"time"

	"agentmarket.space/server/models"
)

// TaskPostedRequest returns what a delivery sends of a posted task at its first try, signed
// with a secret: for programs that tell of tasks in the market's stead.
func TaskPostedRequest(task *models.Task, deliveryID, marketplaceURL, secret string, at time.Time) (http.Header, []byte, error) {
	content, err := requestBody(&models.Delivery{Event: models.HookPosted}, task, marketplaceURL)
	if err != nil {
		return nil, nil, err
	}
	r := request{id: deliveryID, event: string(models.HookPosted), attempt: 1, body: content}
	header, err := r.header(at, secret, "")
	return header, content, err
}

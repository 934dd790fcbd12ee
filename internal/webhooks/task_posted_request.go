package webhooks

import (
	"net/http"
	"time"

	"agentmarket.space/server/models"
)

// TaskPostedRequest returns the headers and the body of the first attempt to
// deliver a posted task, signed with secret. Programs that forward tasks
// themselves use it to send the same request as the market. The header names are not
// in canonical form, so [http.Header.Get] does not find all of them.
func TaskPostedRequest(task *models.Task, deliveryID, marketplaceURL, secret string, at time.Time) (http.Header, []byte, error) {
	body, err := requestBody(&models.Delivery{Event: models.WebhookTaskPosted}, task, marketplaceURL)
	if err != nil {
		return nil, nil, err
	}
	r := request{id: deliveryID, event: string(models.WebhookTaskPosted), attempt: 1, body: body}
	header, err := r.header(at, []string{secret})
	return header, body, err
}

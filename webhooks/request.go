package webhooks

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"agentmarket.space/server/models"
	"agentmarket.space/server/outbound"
)

// What is kept of an answer, in bytes.
const (
	maxBody    = 4 << 10
	maxProblem = 500
)

// CheckURL returns the address in the form it is kept in, or INVALID_INPUT on
// the field when it is not https or is seen not to be public. Names are looked
// up only when they are dialled.
func (w *Webhooks) CheckURL(field, url string) (string, error) {
	return w.client.CheckURL(field, url)
}

// try makes one request and returns what came of it. An error means that no
// verdict can be given: the request could not be made up, or was cut off by the
// end of ctx, as at a shutdown.
func (w *Webhooks) try(ctx context.Context, hook *models.Webhook, delivery *models.Delivery, number int) (answer, error) {
	var task models.Task
	if err := w.db.Read(ctx).Where("id = ?", delivery.TaskID).Take(&task).Error; err != nil {
		return answer{}, fmt.Errorf("read task of delivery %s: %w", delivery.ID, err)
	}
	content, err := body(&task, w.marketplaceURL)
	if err != nil {
		return answer{}, err
	}
	current, old, err := w.secrets(ctx, delivery.AgentID)
	if err != nil {
		return answer{}, err
	}
	started := w.now()
	header, err := headers(delivery.ID, number, started, content, current, old)
	if err != nil {
		return answer{}, err
	}
	limited, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	response, err := w.client.Post(limited, hook.URL, header, content)
	if ctx.Err() != nil {
		return answer{}, fmt.Errorf("delivery %s was cut off: %w", delivery.ID, context.Cause(ctx))
	}
	a := answer{startedAt: models.At(started), latency: w.now().Sub(started)}
	if err != nil {
		a.problem = clip(err.Error(), maxProblem)
		return a, nil
	}
	a.status, a.body = response.Status, clip(string(response.Body), maxBody)
	a.retryAfter = retryAfter(a.status, response.Header.Get("Retry-After"), w.now())
	a.problem = problem(a.status)
	return a, nil
}

// headers returns what is sent beside the body. While an old secret signs, it
// makes the documented header, which has room for one signature: receivers go on
// unchanged until they know the new one. The standard header carries both.
func headers(deliveryID string, number int, at time.Time, content []byte, current, old string) (http.Header, error) {
	documented := current
	standard, err := outbound.SignStandard(current, deliveryID, at.Unix(), content)
	if err != nil {
		return nil, err
	}
	if old != "" {
		documented = old
		second, err := outbound.SignStandard(old, deliveryID, at.Unix(), content)
		if err != nil {
			return nil, err
		}
		standard += " " + second
	}
	timestamp := strconv.FormatInt(at.Unix(), 10)
	return http.Header{
		"Content-Type":            {"application/json"},
		"X-AgentMarket-Event":     {string(models.TaskPosted)},
		"X-AgentMarket-Signature": {outbound.Sign(documented, content)},
		"X-AgentMarket-Delivery":  {deliveryID},
		"X-AgentMarket-Attempt":   {strconv.Itoa(number)},
		"X-AgentMarket-Timestamp": {timestamp},
		"webhook-id":              {deliveryID},
		"webhook-timestamp":       {timestamp},
		"webhook-signature":       {standard},
	}, nil
}

// problem says why an answer with this status does not count, empty when it
// does.
func problem(status int) string {
	switch {
	case status >= 200 && status < 300:
		return ""
	case status >= 300 && status < 400:
		return fmt.Sprintf("answered %d: redirects are not followed", status)
	default:
		return fmt.Sprintf("answered %d", status)
	}
}

// clip returns at most the first limit bytes of a stranger's text, as text that
// any database keeps.
func clip(text string, limit int) string {
	text = text[:min(len(text), limit)]
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

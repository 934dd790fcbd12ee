package webhooks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/tracing"
	"agentmarket.space/server/models"
)

// Limits on the stored part of a request and its response, in bytes. Most
// responses have fewer than half of maxStoredHeaders header lines.
const (
	maxStoredBody      = 4 << 10
	maxStoredError     = 500
	maxStoredHeaders   = 20
	maxStoredHeaderLen = 300 // more than the signatures of all secrets
)

// request is one POST to an agent's webhook.
type request struct {
	agentID, url string
	id           string // delivery id, the same for every attempt
	event        string
	attempt      int // from 1
	body         []byte
	timeout      time.Duration
}

// attemptDelivery makes one attempt of a delivery and returns its outcome. An error
// means that there is no outcome: the request could not be built, or ctx was done
// during the request, for example at shutdown.
func (w *Webhooks) attemptDelivery(ctx context.Context, hook *models.Webhook, delivery *models.Delivery, number int) (attemptOutcome, error) {
	var task models.Task
	if err := w.db.Read(ctx).Where("id = ?", delivery.TaskID).Take(&task).Error; err != nil {
		return attemptOutcome{}, fmt.Errorf("read task of delivery %s: %w", delivery.ID, err)
	}
	body, err := requestBody(delivery, &task, w.marketplaceURL)
	if err != nil {
		return attemptOutcome{}, err
	}
	return w.send(ctx, request{
		agentID: delivery.AgentID, url: hook.URL, id: delivery.ID, event: string(delivery.Event), attempt: number,
		body: body, timeout: w.timeout,
	})
}

// send signs and sends a request. Errors are as for attemptDelivery.
func (w *Webhooks) send(ctx context.Context, r request) (attemptOutcome, error) {
	secrets, err := w.signingSecrets(ctx, r.agentID)
	if errors.Is(err, errSecretLost) { // the owner sees the reason, and a retry succeeds after a rotation
		return attemptOutcome{startedAt: w.timestamp(), requestHeaders: storedHeaders(http.Header{}), failureReason: errSecretLost.Message}, nil
	}
	if err != nil {
		return attemptOutcome{}, err
	}
	startedAt, start := w.timestamp(), w.wallClock()
	header, err := r.header(start, secrets)
	if err != nil {
		return attemptOutcome{}, err
	}
	requestCtx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	_, span := tracing.StartClient(ctx, "POST webhook") // no traceparent header: the receiver is a third party
	response, err := w.client.Post(requestCtx, r.url, header, r.body)
	endRequestSpan(span, response, err)
	if ctx.Err() != nil {
		return attemptOutcome{}, fmt.Errorf("request %s canceled: %w", r.id, context.Cause(ctx))
	}
	o := attemptOutcome{startedAt: startedAt, latency: w.wallClock().Sub(start), requestHeaders: storedHeaders(header)}
	if err != nil {
		o.failureReason = truncate(err.Error(), maxStoredError)
		return o, nil
	}
	o.status, o.responseHeaders, o.body = response.Status, storedHeaders(response.Header), truncate(string(response.Body), maxStoredBody)
	o.retryAfter = parseRetryAfter(o.status, response.Header.Get("Retry-After"), w.wallClock())
	o.failureReason = failureReason(o.status)
	return o, nil
}

// header returns the request headers, signed with all secrets, of which the first is
// the current one and the last the oldest. The Standard Webhooks header carries all
// signatures. X-AgentMarket-Signature carries one and uses the oldest secret, so
// receivers keep working until they switch to the current one.
func (r *request) header(at time.Time, secrets []string) (http.Header, error) {
	var standard []string
	for _, secret := range secrets {
		signature, err := outbound.SignStandardWebhook(secret, r.id, at.Unix(), r.body)
		if err != nil {
			return nil, err
		}
		standard = append(standard, signature)
	}
	oldest := secrets[len(secrets)-1]
	timestamp := strconv.FormatInt(at.Unix(), 10)
	return http.Header{
		"Content-Type":            {"application/json"},
		"X-AgentMarket-Event":     {r.event},
		outbound.SignatureHeader:  {outbound.Sign(oldest, r.body)},
		"X-AgentMarket-Delivery":  {r.id},
		"X-AgentMarket-Attempt":   {strconv.Itoa(r.attempt)},
		"X-AgentMarket-Timestamp": {timestamp},
		"webhook-id":              {r.id},
		"webhook-timestamp":       {timestamp},
		"webhook-signature":       {strings.Join(standard, " ")},
	}, nil
}

// storedHeaders returns the first header lines, sorted by name and truncated, for
// storage.
func storedHeaders(header http.Header) []models.Header {
	lines := []models.Header{}
	for _, name := range slices.Sorted(maps.Keys(header)) {
		for _, value := range header[name] {
			if len(lines) == maxStoredHeaders {
				return lines
			}
			lines = append(lines, models.Header{Name: truncate(name, maxStoredHeaderLen), Value: truncate(value, maxStoredHeaderLen)})
		}
	}
	return lines
}

// failureReason says why a response status is a failure. It returns "" for a
// success.
func failureReason(status int) string {
	switch {
	case status >= 200 && status < 300:
		return ""
	case status >= 300 && status < 400:
		return fmt.Sprintf("endpoint returned status %d; redirects are not followed", status)
	default:
		return fmt.Sprintf("endpoint returned status %d", status)
	}
}

// truncate returns at most the first limit bytes of a third party's text, as valid
// UTF-8 without NUL bytes, which PostgreSQL cannot store.
func truncate(text string, limit int) string {
	text = text[:min(len(text), limit)]
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

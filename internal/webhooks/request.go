package webhooks

import (
	"context"
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

// What is kept of an answer, in bytes; of its header that many lines, each that
// long: most have fewer than half as many.
const (
	maxStoredBody      = 4 << 10
	maxStoredError     = 500
	maxStoredHeaders   = 20
	maxStoredHeaderLen = 200
)

// CheckURL returns the address in the form it is kept in, or INVALID_INPUT on
// the field when it is not https or is seen not to be public. Names are looked
// up only when they are dialled.
func (w *Webhooks) CheckURL(field, url string) (string, error) {
	return w.client.CheckURL(field, url)
}

// request is one POST to an agent's address.
type request struct {
	agentID, url string
	id           string // the same at every try
	event        string
	attempt      int // which try it is, from 1
	body         []byte
	timeout      time.Duration // how long it may take
}

// attemptDelivery makes one try of a delivery and returns what came of it. An error means that
// no verdict can be given: the request could not be made up, or was cut off by the
// end of ctx, as at a shutdown.
func (w *Webhooks) attemptDelivery(ctx context.Context, hook *models.Webhook, delivery *models.Delivery, number int) (attemptOutcome, error) {
	var task models.Task
	if err := w.db.Read(ctx).Where("id = ?", delivery.TaskID).Take(&task).Error; err != nil {
		return attemptOutcome{}, fmt.Errorf("read task of delivery %s: %w", delivery.ID, err)
	}
	content, err := requestBody(delivery, &task, w.marketplaceURL)
	if err != nil {
		return attemptOutcome{}, err
	}
	return w.send(ctx, request{
		agentID: delivery.AgentID, url: hook.URL, id: delivery.ID, event: string(delivery.Event), attempt: number,
		body: content, timeout: w.timeout,
	})
}

// send signs a request and makes it, as try does.
func (w *Webhooks) send(ctx context.Context, r request) (attemptOutcome, error) {
	current, old, err := w.signingSecrets(ctx, r.agentID)
	if err != nil {
		return attemptOutcome{}, err
	}
	started, began := w.timestamp(), w.wallClock()
	header, err := r.header(began, current, old)
	if err != nil {
		return attemptOutcome{}, err
	}
	limited, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	_, span := tracing.StartClient(ctx, "POST webhook") // the receiver is a stranger, and is told nothing of the trace
	response, err := w.client.Post(limited, r.url, header, r.body)
	endRequestSpan(span, response, err)
	if ctx.Err() != nil {
		return attemptOutcome{}, fmt.Errorf("request %s was cut off: %w", r.id, context.Cause(ctx))
	}
	a := attemptOutcome{startedAt: started, latency: w.wallClock().Sub(began), requestHeaders: storedHeaders(header)}
	if err != nil {
		a.failureReason = truncate(err.Error(), maxStoredError)
		return a, nil
	}
	a.status, a.responseHeaders, a.body = response.Status, storedHeaders(response.Header), truncate(string(response.Body), maxStoredBody)
	a.retryAfter = parseRetryAfter(a.status, response.Header.Get("Retry-After"), w.wallClock())
	a.failureReason = failureReason(a.status)
	return a, nil
}

// header returns what is sent beside the body. While an old secret signs, it makes
// the documented header, which has room for one signature: receivers go on
// unchanged until they know the new one. The standard header carries both.
func (r *request) header(at time.Time, current, old string) (http.Header, error) {
	documented := current
	standard, err := outbound.SignStandard(current, r.id, at.Unix(), r.body)
	if err != nil {
		return nil, err
	}
	if old != "" {
		documented = old
		second, err := outbound.SignStandard(old, r.id, at.Unix(), r.body)
		if err != nil {
			return nil, err
		}
		standard += " " + second
	}
	timestamp := strconv.FormatInt(at.Unix(), 10)
	return http.Header{
		"Content-Type":            {"application/json"},
		"X-AgentMarket-Event":     {r.event},
		outbound.SignatureHeader:  {outbound.Sign(documented, r.body)},
		"X-AgentMarket-Delivery":  {r.id},
		"X-AgentMarket-Attempt":   {strconv.Itoa(r.attempt)},
		"X-AgentMarket-Timestamp": {timestamp},
		"webhook-id":              {r.id},
		"webhook-timestamp":       {timestamp},
		"webhook-signature":       {standard},
	}, nil
}

// storedHeaders are the first lines of a header in the order of their names, fit to be kept.
func storedHeaders(header http.Header) []models.Header {
	all := []models.Header{}
	for _, name := range slices.Sorted(maps.Keys(header)) {
		for _, value := range header[name] {
			if len(all) == maxStoredHeaders {
				return all
			}
			all = append(all, models.Header{Name: truncate(name, maxStoredHeaderLen), Value: truncate(value, maxStoredHeaderLen)})
		}
	}
	return all
}

// failureReason says why an answer with this status does not count, empty when it
// does.
func failureReason(status int) string {
	switch {
	case status >= 200 && status < 300:
		return ""
	case status >= 300 && status < 400:
		return fmt.Sprintf("answered %d: redirects are not followed", status)
	default:
		return fmt.Sprintf("answered %d", status)
	}
}

// truncate returns at most the first limit bytes of a stranger's text, as text that
// any database keeps.
func truncate(text string, limit int) string {
	text = text[:min(len(text), limit)]
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

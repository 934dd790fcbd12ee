package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/models"
)

// executeEvent is the event name of a request to an endpoint.
const executeEvent = "task.execute"

// executeRequest is the request body. The order of the fields is the order of the
// JSON keys.
type executeRequest struct {
	Event          string             `json:"event"`
	Task           executeRequestTask `json:"task"`
	MarketplaceURL string             `json:"marketplace_url"`
}

type executeRequestTask struct {
	ID          string         `json:"id"`
	Description string         `json:"description"`
	Budget      models.Credits `json:"budget"`
	CreatedAt   models.Time    `json:"created_at"`
	Deadline    models.Time    `json:"deadline"`
}

// runEndpoint posts the job to the agent's endpoint. The endpoint responds with
// status 200 and {"result": "…"} or plain text, or with 202 to submit its result
// later.
func (e *Executor) runEndpoint(ctx context.Context, agent Agent, secret string, job Job) (RunResult, error) {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(executeRequest{Event: executeEvent, MarketplaceURL: e.options.MarketplaceURL, Task: executeRequestTask{
		ID: job.TaskID, Description: job.Description, Budget: job.Budget, CreatedAt: job.CreatedAt, Deadline: job.Deadline,
	}})
	if err != nil {
		return RunResult{}, fmt.Errorf("encode execute request: %w", err)
	}
	body := bytes.TrimSuffix(buffer.Bytes(), []byte("\n"))
	header, err := e.signedHeaders(secret, job.TaskID, body)
	if err != nil {
		return RunResult{}, err
	}
	response, err := e.client.PostOnce(ctx, agent.EndpointURL, header, body)
	if err != nil {
		return RunResult{}, models.Errorf(models.ExecutionFailed, "request to the agent's endpoint failed: %s", err)
	}
	if response.Status == http.StatusAccepted {
		return RunResult{Promised: true}, nil
	}
	if response.Status != http.StatusOK {
		return RunResult{}, models.Errorf(models.ExecutionFailed, "the agent's endpoint returned status %d", response.Status)
	}
	if len(response.Body) == maxResponseBytes {
		return RunResult{}, models.Errorf(models.ExecutionFailed, "the agent's response is longer than %d MiB", maxResponseBytes>>20)
	}
	result, err := readResult(response)
	return RunResult{Result: result}, err
}

// signedHeaders returns the request headers, signed like a webhook. With an empty
// secret they are not signed.
func (e *Executor) signedHeaders(secret, taskID string, body []byte) (http.Header, error) {
	now := e.options.Now().Unix()
	header := http.Header{
		"Content-Type":            {"application/json"},
		"X-AgentMarket-Event":     {executeEvent},
		"X-AgentMarket-Delivery":  {taskID},
		"X-AgentMarket-Timestamp": {strconv.FormatInt(now, 10)},
	}
	if secret == "" {
		return header, nil
	}
	standard, err := outbound.SignStandardWebhook(secret, taskID, now, body)
	if err != nil {
		return nil, err
	}
	header[outbound.SignatureHeader] = []string{outbound.Sign(secret, body)} // not Set, which changes the case of the name
	header["webhook-id"] = []string{taskID}
	header["webhook-timestamp"] = []string{strconv.FormatInt(now, 10)}
	header["webhook-signature"] = []string{standard}
	return header, nil
}

// readResult returns the result in a response: the string "result" of a JSON object,
// or the whole body of a text response. It returns EXECUTION_FAILED for other
// content types, for compressed responses, and for JSON texts that decoding would change.
func readResult(response *outbound.Response) (string, error) {
	if coding := response.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return "", models.Errorf(models.ExecutionFailed, "the agent's response is compressed; send it without Content-Encoding")
	}
	contentType := response.Header.Get("Content-Type")
	if contentType == "" {
		return string(response.Body), nil
	}
	mediaType, _, err := mime.ParseMediaType(contentType)
	switch {
	case err == nil && mediaType == "application/json":
	case err == nil && strings.HasPrefix(mediaType, "text/"):
		return string(response.Body), nil
	default:
		return "", models.Errorf(models.ExecutionFailed, "the agent's response is neither JSON nor text")
	}
	var body struct {
		Result *string `json:"result"`
	}
	if err := json.Unmarshal(response.Body, &body); err != nil || body.Result == nil {
		return "", models.Errorf(models.ExecutionFailed, `the agent's endpoint must respond with {"result": "…"}`)
	}
	if !isIntactJSON(response.Body) {
		return "", errChangedText
	}
	return *body.Result, nil
}

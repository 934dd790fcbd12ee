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

// executeEvent is what an endpoint is told of.
const executeEvent = "task.execute"

// executeRequest is what is sent to an endpoint.
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

// runEndpoint posts the job to the agent's endpoint. It must answer 200 with
// {"result": "…"} or with plain text, or 202 to hand in its result later.
func (e *Executor) runEndpoint(ctx context.Context, agent Agent, secret string, job Job) (RunResult, error) {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(executeRequest{Event: executeEvent, MarketplaceURL: e.options.MarketplaceURL, Task: executeRequestTask{
		ID: job.TaskID, Description: job.Description, Budget: job.Budget, CreatedAt: job.CreatedAt, Deadline: job.Deadline,
	}})
	if err != nil {
		return RunResult{}, fmt.Errorf("write the call: %w", err)
	}
	content := bytes.TrimSuffix(body.Bytes(), []byte("\n"))
	header, err := e.signedHeaders(secret, job.TaskID, content)
	if err != nil {
		return RunResult{}, err
	}
	response, err := e.client.Post(ctx, agent.EndpointURL, header, content)
	if err != nil {
		return RunResult{}, models.Errorf(models.ExecutionFailed, "the agent's endpoint could not be used: %s", err)
	}
	if response.Status == http.StatusAccepted {
		return RunResult{Promised: true}, nil
	}
	if response.Status != http.StatusOK {
		return RunResult{}, models.Errorf(models.ExecutionFailed, "the agent's endpoint answered %d", response.Status)
	}
	if len(response.Body) == maxResponseBytes {
		return RunResult{}, models.Errorf(models.ExecutionFailed, "the agent's answer is too long")
	}
	result, err := readResult(response)
	return RunResult{Result: result}, err
}

// signedHeaders signs the call like a webhook.
func (e *Executor) signedHeaders(secret, taskID string, content []byte) (http.Header, error) {
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
	standard, err := outbound.SignStandard(secret, taskID, now, content)
	if err != nil {
		return nil, err
	}
	header[outbound.SignatureHeader] = []string{outbound.Sign(secret, content)} // in the documented case
	header["webhook-id"] = []string{taskID}
	header["webhook-timestamp"] = []string{strconv.FormatInt(now, 10)}
	header["webhook-signature"] = []string{standard}
	return header, nil
}

// readResult takes the result out of an answer: JSON must be an object with a text
// as result, text is the result itself. What is neither, or is compressed, is none.
func readResult(response *outbound.Response) (string, error) {
	if coding := response.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return "", models.Errorf(models.ExecutionFailed, "the agent's answer is compressed, and nobody asked for that")
	}
	media := response.Header.Get("Content-Type")
	if media == "" {
		return string(response.Body), nil
	}
	media, _, err := mime.ParseMediaType(media)
	switch {
	case err == nil && media == "application/json":
	case err == nil && strings.HasPrefix(media, "text/"):
		return string(response.Body), nil
	default:
		return "", models.Errorf(models.ExecutionFailed, "the agent's answer is neither JSON nor text")
	}
	var answer struct {
		Result *string `json:"result"`
	}
	if err := json.Unmarshal(response.Body, &answer); err != nil || answer.Result == nil {
		return "", models.Errorf(models.ExecutionFailed, `the agent's endpoint did not answer with {"result": "…"}`)
	}
	return *answer.Result, nil
}

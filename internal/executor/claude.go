package executor

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"
	"github.com/anthropics/anthropic-sdk-go/packages/ssestream"

	"agentmarket.space/server/models"
)

// ClaudeOptions configures how system prompts run. Without an API key they do not
// run.
type ClaudeOptions struct {
	APIKey    string
	BaseURL   string // default: the Anthropic API
	Model     string
	MaxTokens int64
}

func newClaudeClient(o ClaudeOptions) anthropic.Client {
	options := []option.RequestOption{option.WithoutEnvironmentDefaults(), option.WithAPIKey(o.APIKey), option.WithMaxRetries(1)}
	if o.BaseURL != "" {
		options = append(options, option.WithBaseURL(o.BaseURL))
	}
	return anthropic.NewClient(options...)
}

// runPrompt runs the job on the model with the agent's system prompt.
func (e *Executor) runPrompt(ctx context.Context, agent Agent, job Job) (RunResult, error) {
	message, err := e.createMessage(ctx, anthropic.MessageNewParams{
		Model: e.options.Claude.Model, MaxTokens: e.options.Claude.MaxTokens,
		System:   []anthropic.TextBlockParam{{Text: agent.SystemPrompt}},
		Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock(job.Description))},
	}, job.OnText)
	var apiErr *anthropic.Error
	switch {
	case errors.As(err, &apiErr) && apiErr.StatusCode >= http.StatusBadRequest:
		return RunResult{Tokens: new(int64)}, models.Errorf(models.ExecutionFailed, "the model API returned status %d", apiErr.StatusCode)
	case errors.Is(err, errChangedText):
		return RunResult{}, errChangedText
	case err != nil && ctx.Err() == nil:
		return RunResult{}, models.Errorf(models.ExecutionFailed, "the model API is unreachable or closed the connection")
	case err != nil:
		return RunResult{}, err
	}
	usage := message.Usage
	tokens := usage.InputTokens + usage.CacheCreationInputTokens + usage.CacheReadInputTokens + usage.OutputTokens
	var text strings.Builder
	for i := range message.Content {
		text.WriteString(message.Content[i].Text)
	}
	if !isIntactJSON([]byte(message.RawJSON())) {
		return RunResult{Tokens: &tokens}, errChangedText
	}
	if text.Len() == 0 {
		return RunResult{Tokens: &tokens}, models.Errorf(models.ExecutionFailed, "the model returned no text")
	}
	return RunResult{Result: text.String(), Tokens: &tokens}, nil
}

// createMessage sends a request to the model. If onText is not nil, it streams the
// response and calls onText with each piece of text.
func (e *Executor) createMessage(ctx context.Context, params anthropic.MessageNewParams, onText func(string)) (*anthropic.Message, error) {
	if onText == nil {
		return e.claude.Messages.New(ctx, params)
	}
	var response *http.Response
	if err := e.claude.Post(ctx, "v1/messages", params, &response, option.WithJSONSet("stream", true)); err != nil {
		return nil, err
	}
	defer response.Body.Close() //nolint:errcheck // the body has been read
	message := &anthropic.Message{}
	if mediaType, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")); mediaType == "application/json" { // a gateway without streaming
		body, err := io.ReadAll(io.LimitReader(response.Body, maxResponseBytes))
		if err != nil {
			return nil, err
		}
		return message, message.UnmarshalJSON(body)
	}
	stream := ssestream.NewStream[anthropic.MessageStreamEventUnion](ssestream.NewDecoder(response), nil)
	for stream.Next() {
		event := stream.Current()
		if !isIntactJSON([]byte(event.RawJSON())) {
			return nil, errChangedText
		}
		if err := message.Accumulate(event); err != nil {
			return nil, err
		}
		if event.Delta.Text != "" {
			onText(event.Delta.Text)
		}
	}
	if message.StopReason == "" && stream.Err() == nil {
		return nil, io.ErrUnexpectedEOF // a truncated stream ends without an error
	}
	return message, stream.Err()
}

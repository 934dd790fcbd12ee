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

// ClaudeOptions say how system prompts are run. Without a key they are not.
type ClaudeOptions struct {
	APIKey    string
	BaseURL   string // the service's own when empty
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

// runPrompt has the model answer the job under the agent's prompt.
func (e *Executor) runPrompt(ctx context.Context, agent Agent, job Job) (RunResult, error) {
	message, err := e.createMessage(ctx, anthropic.MessageNewParams{
		Model: e.options.Claude.Model, MaxTokens: e.options.Claude.MaxTokens,
		System:   []anthropic.TextBlockParam{{Text: agent.SystemPrompt}},
		Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock(job.Description))},
	}, job.OnText)
	var refused *anthropic.Error
	switch {
	case errors.As(err, &refused) && refused.StatusCode >= http.StatusBadRequest:
		return RunResult{Tokens: new(int64)}, models.Errorf(models.ExecutionFailed, "the model's service answered %d", refused.StatusCode)
	case err != nil && ctx.Err() == nil:
		return RunResult{}, models.Errorf(models.ExecutionFailed, "the model's service could not be reached, or broke off")
	case err != nil:
		return RunResult{}, err
	}
	usage := message.Usage
	tokens := usage.InputTokens + usage.CacheCreationInputTokens + usage.CacheReadInputTokens + usage.OutputTokens
	var text strings.Builder
	for i := range message.Content {
		text.WriteString(message.Content[i].Text)
	}
	if text.Len() == 0 {
		return RunResult{Tokens: &tokens}, models.Errorf(models.ExecutionFailed, "the model answered without text")
	}
	return RunResult{Result: text.String(), Tokens: &tokens}, nil
}

// createMessage asks the model, and tells written of each piece of text as it comes, if
// anybody wants to know.
func (e *Executor) createMessage(ctx context.Context, params anthropic.MessageNewParams, written func(string)) (*anthropic.Message, error) {
	if written == nil {
		return e.claude.Messages.New(ctx, params)
	}
	var response *http.Response
	if err := e.claude.Post(ctx, "v1/messages", params, &response, option.WithJSONSet("stream", true)); err != nil {
		return nil, err
	}
	defer response.Body.Close() //nolint:errcheck // it is read to its end
	message := &anthropic.Message{}
	if media, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type")); media == "application/json" { // a gateway that knows no streams
		body, err := io.ReadAll(io.LimitReader(response.Body, maxResponseBytes))
		if err != nil {
			return nil, err
		}
		return message, message.UnmarshalJSON(body)
	}
	stream := ssestream.NewStream[anthropic.MessageStreamEventUnion](ssestream.NewDecoder(response), nil)
	for stream.Next() {
		event := stream.Current()
		if err := message.Accumulate(event); err != nil {
			return nil, err
		}
		if event.Delta.Text != "" {
			written(event.Delta.Text)
		}
	}
	if message.StopReason == "" && stream.Err() == nil {
		return nil, io.ErrUnexpectedEOF // a stream that is cut off ends like any other
	}
	return message, stream.Err()
}

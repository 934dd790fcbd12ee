package executor

import (
	"context"
	"errors"
	"strings"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"

	"agentmarket.space/server/models"
)

// ClaudeOptions say how system prompts are run. Without a key they are not.
type ClaudeOptions struct {
	APIKey    string
	BaseURL   string // the service's own when empty
	Model     string
	MaxTokens int64
}

func newClaude(o ClaudeOptions) anthropic.Client {
	options := []option.RequestOption{option.WithoutEnvironmentDefaults(), option.WithAPIKey(o.APIKey), option.WithMaxRetries(1)}
	if o.BaseURL != "" {
		options = append(options, option.WithBaseURL(o.BaseURL))
	}
	return anthropic.NewClient(options...)
}

// runPrompt has the model answer the job under the agent's prompt.
func (e *Executor) runPrompt(ctx context.Context, agent Agent, job Job) (Outcome, error) {
	message, err := e.claude.Messages.New(ctx, anthropic.MessageNewParams{
		Model: e.options.Claude.Model, MaxTokens: e.options.Claude.MaxTokens,
		System:   []anthropic.TextBlockParam{{Text: agent.SystemPrompt}},
		Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock(job.Description))},
	})
	var refused *anthropic.Error
	switch {
	case errors.As(err, &refused):
		return Outcome{Tokens: new(int64)}, models.Errorf(models.ExecutionFailed, "the model's service answered %d", refused.StatusCode)
	case err != nil && ctx.Err() == nil:
		return Outcome{}, models.Errorf(models.ExecutionFailed, "the model's service could not be reached")
	case err != nil:
		return Outcome{}, err
	}
	usage := message.Usage
	tokens := usage.InputTokens + usage.CacheCreationInputTokens + usage.CacheReadInputTokens + usage.OutputTokens
	var text strings.Builder
	for i := range message.Content {
		text.WriteString(message.Content[i].Text)
	}
	if text.Len() == 0 {
		return Outcome{Tokens: &tokens}, models.Errorf(models.ExecutionFailed, "the model answered without text")
	}
	return Outcome{Result: text.String(), Tokens: &tokens}, nil
}

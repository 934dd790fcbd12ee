package client

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/Khan/genqlient/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// missingKeyHelp ends the errors of commands that need an API key.
const missingKeyHelp = "set --key or AGENTMARKET_API_KEY; 'agentmarket register NAME' creates a key"

// Streams are the standard streams of a command.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Remote selects the server and the agent for a command.
type Remote struct {
	URL  string `default:"http://127.0.0.1:8080" env:"AGENTMARKET_URL" help:"URL of the server."`
	Key  string `env:"AGENTMARKET_API_KEY" help:"API key of the agent. 'agentmarket register' creates one." placeholder:"KEY"`
	JSON bool   `name:"json" help:"Print JSON."`
}

// Validate checks the URL.
func (r *Remote) Validate() error { return checkURL(r.URL, "http://127.0.0.1:8080") }

// checkURL returns an error unless text is an absolute http or https URL.
func checkURL(text, example string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%q is not a URL like %s", text, example)
	}
	return nil
}

func (r *Remote) client() graphql.Client { return NewClient(r.URL, r.Key) }

func graphqlURL(url string) string { return strings.TrimSuffix(url, "/") + "/graphql" }

// describeError turns the error of a request into an error for the user, with a
// hint on how to fix it. It returns nil for nil.
func (r *Remote) describeError(err error) error {
	if err == nil {
		return nil
	}
	if connectionRefused(err) {
		return fmt.Errorf("no server at %s: start one with 'agentmarket serve' or set --url", r.URL)
	}
	message, code := firstError(err)
	if httpErr, ok := errors.AsType[*graphql.HTTPError](err); ok && code == "" && httpErr.StatusCode < http.StatusInternalServerError {
		return r.wrongURLError(httpErr.StatusCode)
	}
	if code == "" {
		return fmt.Errorf("request to %s: %w", r.URL, err)
	}
	text := SanitizeLine(message) + " (" + code + ")"
	switch code {
	case "UNAUTHENTICATED":
		text += ": " + missingKeyHelp
	case "INSUFFICIENT_CREDITS":
		text += ": 'agentmarket wallet' shows your balance"
	}
	return errors.New(text)
}

// wrongURLError is the error for a response that an AgentMarket server would not
// send.
func (r *Remote) wrongURLError(status int) error {
	return fmt.Errorf("%s is not an AgentMarket server (status %d %s): set --url to its base URL, like http://127.0.0.1:8080",
		r.URL, status, http.StatusText(status))
}

// firstError returns the message and code of the first GraphQL error in err. Both
// are empty if err has none.
func firstError(err error) (message, code string) {
	list, _ := errors.AsType[gqlerror.List](err)
	if httpErr, ok := errors.AsType[*graphql.HTTPError](err); ok {
		list = httpErr.Response.Errors
	}
	if len(list) == 0 {
		return "", ""
	}
	code, _ = list[0].Extensions["code"].(string)
	return list[0].Message, code
}

// CodeOf returns the code of the first GraphQL error in err, or "".
func CodeOf(err error) string {
	_, code := firstError(err)
	return code
}

// Optional returns a pointer to text, or nil if text is empty.
func Optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/Khan/genqlient/graphql"
	"github.com/google/uuid"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// Streams are where a command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Remote is the market that a command asks, and as whom.
type Remote struct {
	URL  string `default:"http://127.0.0.1:8080" env:"AGENTMARKET_URL" help:"Address of the market."`
	Key  string `env:"AGENTMARKET_API_KEY" help:"API key of the agent to act as; 'agentmarket register' gives one."`
	JSON bool   `name:"json" help:"Print JSON, for programs."`
}

// Validate refuses an address that nobody can be asked at.
func (r *Remote) Validate() error { return checkURL(r.URL, "http://127.0.0.1:8080") }

// checkURL refuses what is not the address of a server.
func checkURL(text, like string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%q is not an address like %s", text, like)
	}
	return nil
}

const (
	// requestTimeout is how long an answer may take: a hire waits for the hired agent.
	requestTimeout = 2 * time.Minute
	// maxAttempts is how often a request is sent that got no answer. Its Idempotency-Key
	// has the market do it once.
	maxAttempts = 3
	retryPause  = 200 * time.Millisecond
)

// NewClient returns what the functions of package api ask the market at an address with,
// as the agent of a key, or as nobody with none. What gets no answer is sent again, and
// done once.
func NewClient(url, key string) graphql.Client {
	return graphql.NewClient(graphqlURL(url), &retryingDoer{key: key, http: &http.Client{Timeout: requestTimeout, CheckRedirect: rejectRedirect}})
}

func (r *Remote) client() graphql.Client { return NewClient(r.URL, r.Key) }

func graphqlURL(url string) string { return strings.TrimSuffix(url, "/") + "/graphql" }

// rejectRedirect follows no redirect: the key would go along.
func rejectRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// retryingDoer sends requests with the key, again when no answer came.
type retryingDoer struct {
	key  string
	http *http.Client
}

// Do sends a request.
func (s *retryingDoer) Do(r *http.Request) (*http.Response, error) {
	if s.key != "" {
		r.Header.Set("X-Api-Key", s.key)
	}
	key, ok := r.Context().Value(idempotencyContextKey{}).(string)
	if !ok {
		key = uuid.NewString()
	}
	r.Header.Set("Idempotency-Key", key)
	for try := 1; ; try++ {
		response, err := s.http.Do(r) //nolint:gosec // it asks whom the user says
		again := err != nil || response.StatusCode == http.StatusServiceUnavailable
		if !again || try == maxAttempts || connectionRefused(err) || !Sleep(r.Context(), time.Duration(try)*retryPause) {
			return response, err //nolint:wrapcheck // genqlient's contract
		}
		if err == nil {
			_ = response.Body.Close()
		}
		if r.Body, err = r.GetBody(); err != nil {
			return nil, fmt.Errorf("send again: %w", err)
		}
	}
}

type idempotencyContextKey struct{}

// retryUntilDone does what must not be left undone, once, however often no answer comes: it
// is tried again until the market does it or refuses it, or ctx ends.
func retryUntilDone[T any](ctx context.Context, do func(context.Context) (*T, error)) (*T, error) {
	ctx = context.WithValue(ctx, idempotencyContextKey{}, uuid.NewString())
	for wait := minBackoff; ; wait = min(2*wait, maxBackoff) {
		answer, err := do(ctx)
		if err == nil {
			return answer, nil
		}
		switch CodeOf(err) {
		case "", "UNAVAILABLE", "RATE_LIMITED", "INTERNAL":
			if Sleep(ctx, wait) {
				continue
			}
		}
		return nil, err
	}
}

// connectionRefused reports whether nobody listens at the address.
func connectionRefused(err error) bool {
	operation, ok := errors.AsType[*net.OpError](err)
	return ok && operation.Op == "dial"
}

// Sleep waits, and reports whether ctx has not ended.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// describeError says what went wrong, and what to do about it.
func (r *Remote) describeError(err error) error {
	if err == nil {
		return nil
	}
	if connectionRefused(err) {
		return fmt.Errorf("no market answers at %s: start one with 'agentmarket serve', or give --url", r.URL)
	}
	message, code := firstError(err)
	if answer, ok := errors.AsType[*graphql.HTTPError](err); ok && code == "" && answer.StatusCode < http.StatusInternalServerError {
		return r.notMarketError(answer.StatusCode)
	}
	if code == "" {
		return fmt.Errorf("ask %s: %w", r.URL, err)
	}
	text := SanitizeLine(message) + " (" + code + ")"
	switch code {
	case "UNAUTHENTICATED":
		text += ": give --key or AGENTMARKET_API_KEY; 'agentmarket register NAME' makes one"
	case "INSUFFICIENT_CREDITS":
		text += ": 'agentmarket wallet' shows what there is"
	}
	return errors.New(text)
}

// notMarketError is what is wrong with an address whose server answers what a market does not.
func (r *Remote) notMarketError(status int) error {
	return fmt.Errorf("%s is not a market, it answers %d %s: give --url the address alone, like http://127.0.0.1:8080",
		r.URL, status, http.StatusText(status))
}

// firstError is what the market says of a request that it refused, and the code; both
// are empty for any other error.
func firstError(err error) (message, code string) {
	list, _ := errors.AsType[gqlerror.List](err)
	if answer, ok := errors.AsType[*graphql.HTTPError](err); ok {
		list = answer.Response.Errors
	}
	if len(list) == 0 {
		return "", ""
	}
	code, _ = list[0].Extensions["code"].(string)
	return list[0].Message, code
}

// CodeOf is the code of a refusal, empty for any other error.
func CodeOf(err error) string {
	_, code := firstError(err)
	return code
}

// printResult prints an answer: as JSON, or as a table whose cells are separated by tabs.
func (r *Remote) printResult(to Streams, answer any, lines ...string) error {
	if r.JSON {
		encoder := json.NewEncoder(to.Out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(answer)
	}
	table := tabwriter.NewWriter(to.Out, 0, 0, 2, ' ', 0)
	for _, line := range lines {
		if _, err := fmt.Fprintln(table, line); err != nil {
			return err
		}
	}
	return table.Flush()
}

// row is a line of a table.
func row(cells ...any) string {
	texts := make([]string, len(cells))
	for i, cell := range cells {
		texts[i] = SanitizeLine(fmt.Sprint(cell))
	}
	return strings.Join(texts, "\t")
}

// SanitizeLine is a stranger's text as it may stand in a cell: nothing in it moves the
// cursor or starts a line.
func SanitizeLine(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 {
			return ' '
		}
		return c
	}, text)
}

// sanitizeText is a stranger's text as it may stand at a terminal: as SanitizeLine, but that lines
// and tabs stay.
func sanitizeText(text string) string {
	kept := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i, line := range kept {
		cells := strings.Split(line, "\t")
		for j, cell := range cells {
			cells[j] = SanitizeLine(cell)
		}
		kept[i] = strings.Join(cells, "\t")
	}
	return strings.Join(kept, "\n")
}

// optional is a text that was given, nil for none.
func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// formatTime is a time as people read it.
func formatTime(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") } //nolint:gosmopolitan // for the reader's own eyes

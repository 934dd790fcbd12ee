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
func (r *Remote) Validate() error { return checkAddress(r.URL, "http://127.0.0.1:8080") }

// checkAddress refuses what is not the address of a server.
func checkAddress(text, like string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%q is not an address like %s", text, like)
	}
	return nil
}

const (
	// requestTime is how long an answer may take: a hire waits for the hired agent.
	requestTime = 2 * time.Minute
	// tries is how often a request is sent that got no answer. Its Idempotency-Key
	// has the market do it once.
	tries = 3
	pause = 200 * time.Millisecond
)

// NewClient returns what the functions of package api ask the market at an address with,
// as the agent of a key, or as nobody with none. What gets no answer is sent again, and
// done once.
func NewClient(url, key string) graphql.Client {
	return graphql.NewClient(endpoint(url), &sender{key: key, http: &http.Client{Timeout: requestTime, CheckRedirect: stay}})
}

func (r *Remote) client() graphql.Client { return NewClient(r.URL, r.Key) }

func endpoint(url string) string { return strings.TrimSuffix(url, "/") + "/graphql" }

// stay follows no redirect: the key would go along.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// sender sends requests with the key, again when no answer came.
type sender struct {
	key  string
	http *http.Client
}

// Do sends a request.
func (s *sender) Do(r *http.Request) (*http.Response, error) {
	if s.key != "" {
		r.Header.Set("X-Api-Key", s.key)
	}
	key, ok := r.Context().Value(onceKey{}).(string)
	if !ok {
		key = uuid.NewString()
	}
	r.Header.Set("Idempotency-Key", key)
	for try := 1; ; try++ {
		response, err := s.http.Do(r) //nolint:gosec // it asks whom the user says
		again := err != nil || response.StatusCode == http.StatusServiceUnavailable
		if !again || try == tries || refused(err) || !Waited(r.Context(), time.Duration(try)*pause) {
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

type onceKey struct{}

// insist does what must not be left undone, once, however often no answer comes: it
// is tried again until the market does it or refuses it, or ctx ends.
func insist[T any](ctx context.Context, do func(context.Context) (*T, error)) (*T, error) {
	ctx = context.WithValue(ctx, onceKey{}, uuid.NewString())
	for wait := leastWait; ; wait = min(2*wait, mostWait) {
		answer, err := do(ctx)
		if err == nil {
			return answer, nil
		}
		switch CodeOf(err) {
		case "", "UNAVAILABLE", "RATE_LIMITED", "INTERNAL":
			if Waited(ctx, wait) {
				continue
			}
		}
		return nil, err
	}
}

// refused reports whether nobody listens at the address.
func refused(err error) bool {
	operation, ok := errors.AsType[*net.OpError](err)
	return ok && operation.Op == "dial"
}

// Waited waits, and reports whether ctx has not ended.
func Waited(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// explain says what went wrong, and what to do about it.
func (r *Remote) explain(err error) error {
	if err == nil {
		return nil
	}
	if refused(err) {
		return fmt.Errorf("no market answers at %s: start one with 'agentmarket serve', or give --url", r.URL)
	}
	message, code := refusal(err)
	if answer, ok := errors.AsType[*graphql.HTTPError](err); ok && code == "" && answer.StatusCode < http.StatusInternalServerError {
		return r.noMarket(answer.StatusCode)
	}
	if code == "" {
		return fmt.Errorf("ask %s: %w", r.URL, err)
	}
	text := OneLine(message) + " (" + code + ")"
	switch code {
	case "UNAUTHENTICATED":
		text += ": give --key or AGENTMARKET_API_KEY; 'agentmarket register NAME' makes one"
	case "INSUFFICIENT_CREDITS":
		text += ": 'agentmarket wallet' shows what there is"
	}
	return errors.New(text)
}

// noMarket is what is wrong with an address whose server answers what a market does not.
func (r *Remote) noMarket(status int) error {
	return fmt.Errorf("%s is not a market, it answers %d %s: give --url the address alone, like http://127.0.0.1:8080",
		r.URL, status, http.StatusText(status))
}

// refusal is what the market says of a request that it refused, and the code; both
// are empty for any other error.
func refusal(err error) (message, code string) {
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
	_, code := refusal(err)
	return code
}

// show prints an answer: as JSON, or as a table whose cells are separated by tabs.
func (r *Remote) show(to Streams, answer any, lines ...string) error {
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
		texts[i] = OneLine(fmt.Sprint(cell))
	}
	return strings.Join(texts, "\t")
}

// OneLine is a stranger's text as it may stand in a cell: nothing in it moves the
// cursor or starts a line.
func OneLine(text string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 {
			return ' '
		}
		return c
	}, text)
}

// lines is a stranger's text as it may stand at a terminal: as OneLine, but that lines
// and tabs stay.
func lines(text string) string {
	kept := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	for i, line := range kept {
		cells := strings.Split(line, "\t")
		for j, cell := range cells {
			cells[j] = OneLine(cell)
		}
		kept[i] = strings.Join(cells, "\t")
	}
	return strings.Join(kept, "\n")
}

// given is a text that was given, nil for none.
func given(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// moment is a time as people read it.
func moment(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") } //nolint:gosmopolitan // for the reader's own eyes

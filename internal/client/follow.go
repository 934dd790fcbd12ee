package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/vektah/gqlparser/v2/gqlerror"

	"agentmarket.space/server/internal/client/api"
)

// posted is a task that was posted, and the cursor to go on after.
type posted = api.TaskPostedTaskPostedTaskPostedEvent

const (
	maxEvent = 4 << 20 // bytes; a task's description has 50 000 characters at most
	// The pauses before a stream that broke is asked for again.
	leastWait = 500 * time.Millisecond
	mostWait  = 10 * time.Second
	// silence is for how long a stream may be without a sign of life; the market
	// gives one every fifteen seconds or so.
	silence = time.Minute
)

// errBroken is why a stream is asked for again.
var errBroken = errors.New("the stream broke off")

// follow calls each with tasks that others post, in their order, none left out
// and none twice, until ctx ends or each fails. When the stream breaks off it goes
// on after the last cursor.
func (r *Remote) follow(ctx context.Context, to Streams, capabilities []string, after *string, each func(*posted) error) error {
	wait := leastWait
	for {
		err := r.stream(ctx, capabilities, after, func(event *posted) error {
			wait = leastWait
			if err := each(event); err != nil {
				return err
			}
			after = &event.Cursor
			return nil
		})
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it was asked to end
		case !errors.Is(err, errBroken):
			return err
		}
		_, _ = fmt.Fprintf(to.Err, "%v; trying again\n", err)
		if !Waited(ctx, wait) {
			return nil
		}
		wait = min(2*wait, mostWait)
	}
}

// stream reads the server-sent events of one connection. It fails with errBroken
// when there would be more on another one.
func (r *Remote) stream(ctx context.Context, capabilities []string, after *string, each func(*posted) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	body, err := json.Marshal(map[string]any{
		"query": api.TaskPosted_Operation, "variables": map[string]any{"capabilities": capabilities, "after": after},
	})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint(r.URL), bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "text/event-stream")
	if r.Key != "" {
		request.Header.Set("X-Api-Key", r.Key)
	}
	response, err := (&http.Client{CheckRedirect: stay}).Do(request)
	if err != nil {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	defer response.Body.Close() //nolint:errcheck // nothing is lost with it
	if response.StatusCode != http.StatusOK {
		return r.turnedAway(response)
	}
	quiet := time.AfterFunc(silence, func() { cancel(errors.New("nothing was heard")) })
	defer quiet.Stop()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		quiet.Reset(silence)
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data:"))
		if !ok || len(bytes.TrimSpace(data)) == 0 {
			continue
		}
		if err := r.hear(data, each); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	return errBroken
}

// turnedAway is why there is no stream, errBroken when there may be one later.
func (r *Remote) turnedAway(response *http.Response) error {
	var said struct{ Errors gqlerror.List }
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxEvent)) // what is missing of it is no JSON
	switch known := json.Unmarshal(body, &said) == nil && CodeOf(said.Errors) != ""; {
	case response.StatusCode >= http.StatusInternalServerError || response.StatusCode == http.StatusTooManyRequests:
		return fmt.Errorf("%w: the market answered %s", errBroken, OneLine(response.Status))
	case known:
		return r.explain(said.Errors)
	default:
		return r.noMarket(response.StatusCode)
	}
}

// hear takes one message of a stream.
func (r *Remote) hear(data []byte, each func(*posted) error) error {
	var message struct {
		Data   *api.TaskPostedResponse
		Errors gqlerror.List
	}
	if err := json.Unmarshal(data, &message); err != nil {
		return fmt.Errorf("the market sent what is no GraphQL response: %w", err)
	}
	if len(message.Errors) > 0 {
		switch CodeOf(message.Errors) {
		case "SLOW_CONSUMER", "UNAVAILABLE", "RATE_LIMITED":
			return fmt.Errorf("%w: %w", errBroken, message.Errors)
		default:
			return r.explain(message.Errors)
		}
	}
	if message.Data == nil {
		return nil
	}
	return each(&message.Data.TaskPosted)
}

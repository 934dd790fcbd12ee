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

// taskPostedEvent is a task that was posted, and the cursor to go on after.
type taskPostedEvent = api.TaskPostedTaskPostedTaskPostedEvent

const (
	maxEventBytes = 4 << 20 // bytes; a task's description has 50 000 characters at most
	// The pauses before a stream that broke is asked for again.
	minBackoff = 500 * time.Millisecond
	maxBackoff = 10 * time.Second
	// idleTimeout is for how long a stream may be without a sign of life; the market
	// gives one every fifteen seconds or so.
	idleTimeout = time.Minute
)

// errStreamBroken is why a stream is asked for again.
var errStreamBroken = errors.New("the stream broke off")

// followTasks calls each with tasks that others post, in their order, none left out
// and none twice, until ctx ends or each fails. When the stream breaks off it goes
// on after the last cursor.
func (r *Remote) followTasks(ctx context.Context, to Streams, capabilities []string, after *string, each func(*taskPostedEvent) error) error {
	wait := minBackoff
	for {
		err := r.readStream(ctx, capabilities, after, func(event *taskPostedEvent) error {
			wait = minBackoff
			if err := each(event); err != nil {
				return err
			}
			after = &event.Cursor
			return nil
		})
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it was asked to end
		case !errors.Is(err, errStreamBroken):
			return err
		}
		_, _ = fmt.Fprintf(to.Err, "%v; trying again\n", err)
		if !Sleep(ctx, wait) {
			return nil
		}
		wait = min(2*wait, maxBackoff)
	}
}

// readStream reads the server-sent events of one connection. It fails with errStreamBroken
// when there would be more on another one.
func (r *Remote) readStream(ctx context.Context, capabilities []string, after *string, each func(*taskPostedEvent) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	body, err := json.Marshal(map[string]any{
		"query": api.TaskPosted_Operation, "variables": map[string]any{"capabilities": capabilities, "after": after},
	})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, graphqlURL(r.URL), bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "text/event-stream")
	if r.Key != "" {
		request.Header.Set("X-Api-Key", r.Key)
	}
	response, err := (&http.Client{CheckRedirect: rejectRedirect}).Do(request)
	if err != nil {
		return fmt.Errorf("%w: %w", errStreamBroken, err)
	}
	defer response.Body.Close() //nolint:errcheck // nothing is lost with it
	if response.StatusCode != http.StatusOK {
		return r.streamRefusedError(response)
	}
	quiet := time.AfterFunc(idleTimeout, func() { cancel(errors.New("nothing was heard")) })
	defer quiet.Stop()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxEventBytes)
	for lines.Scan() {
		quiet.Reset(idleTimeout)
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data:"))
		if !ok || len(bytes.TrimSpace(data)) == 0 {
			continue
		}
		if err := r.handleMessage(data, each); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%w: %w", errStreamBroken, err)
	}
	return errStreamBroken
}

// streamRefusedError is why there is no stream, errStreamBroken when there may be one later.
func (r *Remote) streamRefusedError(response *http.Response) error {
	var said struct{ Errors gqlerror.List }
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxEventBytes)) // what is missing of it is no JSON
	switch known := json.Unmarshal(body, &said) == nil && CodeOf(said.Errors) != ""; {
	case response.StatusCode >= http.StatusInternalServerError || response.StatusCode == http.StatusTooManyRequests:
		return fmt.Errorf("%w: the market answered %s", errStreamBroken, SanitizeLine(response.Status))
	case known:
		return r.describeError(said.Errors)
	default:
		return r.notMarketError(response.StatusCode)
	}
}

// handleMessage takes one message of a stream.
func (r *Remote) handleMessage(data []byte, each func(*taskPostedEvent) error) error {
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
			return fmt.Errorf("%w: %w", errStreamBroken, message.Errors)
		default:
			return r.describeError(message.Errors)
		}
	}
	if message.Data == nil {
		return nil
	}
	return each(&message.Data.TaskPosted)
}

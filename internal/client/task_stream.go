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

// taskPostedEvent is a posted task and the cursor of its event.
type taskPostedEvent = api.TaskPostedTaskPostedTaskPostedEvent

const (
	// maxEventBytes bounds an event. A description has at most 50,000 characters.
	maxEventBytes = 4 << 20
	// idleTimeout closes a stream without data. The server sends a heartbeat about
	// every 15 seconds.
	idleTimeout = time.Minute
)

// errStreamBroken is the error of a stream that can be resumed.
var errStreamBroken = errors.New("the event stream was interrupted")

// followTasks calls handle for each posted task, in order and exactly once, until ctx
// is done or handle returns an error. It resumes an interrupted stream after the
// last cursor.
func (r *Remote) followTasks(ctx context.Context, to Streams, capabilities []string, after *string, handle func(*taskPostedEvent) error) error {
	for pause := (backoff{}); ; {
		err := r.readStream(ctx, capabilities, after, func(event *taskPostedEvent) error {
			pause.reset()
			if err := handle(event); err != nil {
				return err
			}
			after = &event.Cursor
			return nil
		})
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the caller stops
		case !errors.Is(err, errStreamBroken):
			return err
		}
		_, _ = fmt.Fprintf(to.Err, "%v; retrying\n", err)
		if !pause.wait(ctx) {
			return nil
		}
	}
}

// readStream reads the server-sent events of one connection. The error wraps
// errStreamBroken if the stream can be resumed.
func (r *Remote) readStream(ctx context.Context, capabilities []string, after *string, handle func(*taskPostedEvent) error) error {
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
	defer response.Body.Close() //nolint:errcheck // only read
	if response.StatusCode != http.StatusOK {
		return r.streamRefusedError(response)
	}
	idle := time.AfterFunc(idleTimeout, func() { cancel(errors.New("no data before the idle timeout")) })
	defer idle.Stop()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxEventBytes)
	for lines.Scan() {
		idle.Reset(idleTimeout)
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data:"))
		if !ok || len(bytes.TrimSpace(data)) == 0 {
			continue
		}
		if err := r.handleMessage(data, handle); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%w: %w", errStreamBroken, err)
	}
	return errStreamBroken
}

// streamRefusedError returns the error of a response without a stream. It wraps
// errStreamBroken if a later request can succeed.
func (r *Remote) streamRefusedError(response *http.Response) error {
	var body struct{ Errors gqlerror.List }
	text, _ := io.ReadAll(io.LimitReader(response.Body, maxEventBytes)) // a truncated body is invalid JSON
	switch isGraphQL := json.Unmarshal(text, &body) == nil && CodeOf(body.Errors) != ""; {
	case response.StatusCode >= http.StatusInternalServerError || response.StatusCode == http.StatusTooManyRequests:
		return fmt.Errorf("%w: the server returned %s", errStreamBroken, SanitizeLine(response.Status))
	case isGraphQL:
		return r.describeError(body.Errors)
	default:
		return r.wrongURLError(response.StatusCode)
	}
}

// handleMessage decodes one event of the stream.
func (r *Remote) handleMessage(data []byte, handle func(*taskPostedEvent) error) error {
	var message struct {
		Data   *api.TaskPostedResponse
		Errors gqlerror.List
	}
	if err := json.Unmarshal(data, &message); err != nil {
		return fmt.Errorf("decode the event: %w", err)
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
	return handle(&message.Data.TaskPosted)
}

// Command worker-go hears of tasks over a socket, does them and is paid.
package main

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"os/signal"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	w := &worker{
		url: cmp.Or(os.Getenv("AGENTMARKET_URL"), "http://127.0.0.1:8080"), key: os.Getenv("AGENTMARKET_API_KEY"),
		tried: map[string]bool{},
	}
	for ctx.Err() == nil {
		if err := w.listen(ctx); err != nil {
			slog.Warn("not listening; trying again", slog.Any("error", err))
		}
		sleep(ctx)
	}
}

type worker struct {
	url, key     string
	capabilities []string
	after        *string         // the cursor of the last event
	tried        map[string]bool // tasks, by id
}

// listen does each task as it is posted, and what waits, until the connection breaks.
// What is posted before there is another one is told there, after the cursor.
func (w *worker) listen(ctx context.Context) error {
	socket, err := dial(ctx, w.url, w.key)
	if err != nil {
		return err
	}
	defer socket.conn.Close()
	events, _, err := TaskPosted(ctx, socket, w.after)
	if err != nil {
		return err
	}
	again := time.NewTicker(30 * time.Second)
	defer again.Stop()
	for err = w.catchUp(ctx); err == nil; {
		select {
		case <-ctx.Done():
			return nil
		case err = <-socket.errs:
		case <-again.C: // what was given back is not posted again
			err = w.catchUp(ctx)
		case event := <-events:
			if event.Errors != nil {
				return event.Errors
			}
			w.doTask(ctx, event.Data.TaskPosted.Task)
			w.after = &event.Data.TaskPosted.Cursor
		}
	}
	return w.resetExpiredCursor(err)
}

// catchUp does what the worker had accepted and not finished, and what is open.
func (w *worker) catchUp(ctx context.Context) error {
	waiting, err := Waiting(ctx, w.client(""))
	if err != nil {
		return err
	}
	w.capabilities = waiting.Viewer.Agent.Capabilities
	for _, task := range append(waiting.Viewer.WorkedTasks.Nodes, waiting.Tasks.Nodes...) {
		w.doTask(ctx, task)
	}
	return nil
}

// Command worker-go completes tasks as they are posted, over a GraphQL subscription.
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
			slog.Warn("disconnected, retrying", slog.Any("error", err))
		}
		sleep(ctx)
	}
}

type worker struct {
	url, key     string
	capabilities []string
	after        *string         // cursor of the last event
	tried        map[string]bool // ids of tasks
}

// listen completes pending and new tasks until the connection is lost. The next
// connection resumes after the cursor.
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
	ticker := time.NewTicker(30 * time.Second)
	defer ticker.Stop()
	for err = w.catchUp(ctx); err == nil; {
		select {
		case <-ctx.Done():
			return nil
		case err = <-socket.errs:
		case <-ticker.C: // a released task is open again without an event
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

// catchUp completes tasks that the worker has accepted before, and open tasks.
func (w *worker) catchUp(ctx context.Context) error {
	pending, err := PendingTasks(ctx, w.client(""))
	if err != nil {
		return err
	}
	w.capabilities = pending.Viewer.Agent.Capabilities
	for _, task := range append(pending.Viewer.WorkedTasks.Nodes, pending.Tasks.Nodes...) {
		w.doTask(ctx, task)
	}
	return nil
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// work is what this worker does. Put yours here.
func work(task TaskFields) string { return strings.ToUpper(task.Description) }

// doTask takes a task, does it and hands in the result, once.
func (w *worker) doTask(ctx context.Context, task TaskFields) {
	fits := slices.ContainsFunc(task.RequiredCapabilities, func(c string) bool { return slices.Contains(w.capabilities, c) })
	if w.tried[task.Id] || !fits {
		return
	}
	w.tried[task.Id] = true
	if _, err := Accept(ctx, w.client("accept-"+task.Id), task.Id); err != nil {
		return // another was faster
	}
	done, err := Complete(ctx, w.client("complete-"+task.Id), task.Id, work(task))
	if err != nil {
		slog.Error("not completed", slog.String("task", task.Id), slog.Any("error", err))
		return
	}
	fmt.Printf("%s: completed, %d credits\n", task.Id, done.CompleteTask.Wallet.Balance)
}

// resetExpiredCursor passes on why listening has ended. A cursor is given up that the market refuses:
// it does so with a list of errors, which genqlient takes for an answer and cannot read.
func (w *worker) resetExpiredCursor(err error) error {
	if _, list := errors.AsType[*json.UnmarshalTypeError](err); list {
		w.after = nil // it is too old; what is open is listed
	}
	return err
}

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

// work does the work and returns the result. Replace it with your own.
func work(task TaskFields) string { return strings.ToUpper(task.Description) }

// doTask accepts a task, does the work and submits the result. It tries each task once.
func (w *worker) doTask(ctx context.Context, task TaskFields) {
	matches := slices.ContainsFunc(task.RequiredCapabilities, func(c string) bool { return slices.Contains(w.capabilities, c) })
	if w.tried[task.Id] || !matches {
		return
	}
	w.tried[task.Id] = true
	if _, err := AcceptTask(ctx, w.client("accept-"+task.Id), task.Id); err != nil {
		return // another agent has accepted it
	}
	done, err := CompleteTask(ctx, w.client("complete-"+task.Id), task.Id, work(task))
	if err != nil {
		slog.Error("task not completed", slog.String("task", task.Id), slog.Any("error", err))
		return
	}
	fmt.Printf("%s: completed, %d credits\n", task.Id, done.CompleteTask.Wallet.Balance)
}

// resetExpiredCursor clears the cursor if err shows that the server rejected it, and
// returns err. The server rejects it with a list of errors, which genqlient cannot decode.
func (w *worker) resetExpiredCursor(err error) error {
	if _, list := errors.AsType[*json.UnmarshalTypeError](err); list {
		w.after = nil // expired; catchUp lists the open tasks
	}
	return err
}

package models_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"agentmarket.space/server/models"
)

// TestAsError checks that a wrapped Error is found, and that nothing of other errors is
// revealed.
func TestAsError(t *testing.T) {
	t.Parallel()
	conflict := models.Errorf(models.Conflict, "task %s is already assigned", "t1")
	secret := errors.New("dial 10.0.0.7: password hunter2")
	for name, row := range map[string]struct {
		err     error
		code    models.Code
		message string
		field   string
	}{
		"an Error":             {conflict, models.Conflict, "task t1 is already assigned", ""},
		"a wrapped Error":      {fmt.Errorf("accept: %w", fmt.Errorf("task: %w", conflict)), models.Conflict, "task t1 is already assigned", ""},
		"a joined Error":       {errors.Join(secret, conflict), models.Conflict, "task t1 is already assigned", ""},
		"an Error of a field":  {models.FieldErrorf("budget", "must be from %d to %d credits", 2, 9), models.InvalidInput, "budget must be from 2 to 9 credits", "budget"},
		"another error":        {secret, models.Internal, "internal error", ""},
		"a wrapped error":      {fmt.Errorf("post: %w", secret), models.Internal, "internal error", ""},
		"an Error in the text": {fmt.Errorf("post: %v", conflict), models.Internal, "internal error", ""}, //nolint:errorlint // not wrapped on purpose
	} {
		got := models.AsError(row.err)
		if got.Code != row.code || models.CodeOf(row.err) != row.code || got.Error() != row.message || got.Field != row.field {
			t.Errorf("%s is %+v, want %s %q for field %q", name, got, row.code, row.message, row.field)
		}
		if strings.Contains(got.Message, "hunter2") {
			t.Errorf("%s reveals %q", name, got.Message)
		}
	}
	first := models.AsError(secret)
	first.Message = "changed"
	if models.AsError(secret).Message == first.Message {
		t.Error("two errors share one Error")
	}
}

package models_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"agentmarket.space/server/models"
)

// TestAsError finds the refusal however deep it is wrapped, and shows nothing of
// any other error.
func TestAsError(t *testing.T) {
	t.Parallel()
	refusal := models.Errorf(models.Conflict, "task %s is already assigned", "t1")
	secret := errors.New("dial 10.0.0.7: password hunter2")
	for name, row := range map[string]struct {
		err     error
		code    models.Code
		message string
		field   string
	}{
		"a refusal":            {refusal, models.Conflict, "task t1 is already assigned", ""},
		"a wrapped one":        {fmt.Errorf("accept: %w", fmt.Errorf("task: %w", refusal)), models.Conflict, "task t1 is already assigned", ""},
		"one among others":     {errors.Join(secret, refusal), models.Conflict, "task t1 is already assigned", ""},
		"about a field":        {models.Invalid("budget", "must be from %d to %d credits", 2, 9), models.InvalidInput, "budget must be from 2 to 9 credits", "budget"},
		"a fault":              {secret, models.Internal, "internal error", ""},
		"a wrapped fault":      {fmt.Errorf("post: %w", secret), models.Internal, "internal error", ""},
		"a refusal as a cause": {fmt.Errorf("post: %v", refusal), models.Internal, "internal error", ""}, //nolint:errorlint // what is not wrapped is not found
	} {
		got := models.AsError(row.err)
		if got.Code != row.code || models.CodeOf(row.err) != row.code || got.Error() != row.message || got.Field != row.field {
			t.Errorf("%s is %+v, want %s %q about %q", name, got, row.code, row.message, row.field)
		}
		if strings.Contains(got.Message, "hunter2") {
			t.Errorf("%s shows %q", name, got.Message)
		}
	}
	one := models.AsError(secret)
	one.Message = "changed"
	if models.AsError(secret).Message == one.Message {
		t.Error("two faults share one refusal")
	}
}

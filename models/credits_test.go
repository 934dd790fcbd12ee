package models_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"agentmarket.space/server/models"
)

// TestSplit_largest: neither rounding nor size loses a credit where budgets end.
func TestSplit_largest(t *testing.T) {
	t.Parallel()
	for below := range models.Credits(10_000) {
		budget := models.MaxBudget - below
		worker, fee := budget.Split()
		if worker+fee != budget || 10*worker > 9*budget || 10*(worker+1) <= 9*budget {
			t.Errorf("%d is shared as %d and %d, which is not nine tenths rounded down", budget, worker, fee)
		}
	}
	if worker, fee := (models.MinBudget - 1).Split(); worker != 0 || fee != 1 {
		t.Errorf("a budget too small is shared as %d and %d: the least could be lower", worker, fee)
	}
}

// TestCredits_UnmarshalGQL takes whole numbers in every form a request brings.
func TestCredits_UnmarshalGQL(t *testing.T) {
	t.Parallel()
	const past64 = "9223372036854775808"
	for name, row := range map[string]struct {
		in   any
		want models.Credits
		ok   bool
	}{
		"an int":                 {25, 25, true},
		"an int64":               {int64(1) << 60, 1 << 60, true},
		"a number":               {json.Number("25"), 25, true},
		"a negative number":      {json.Number("-25"), -25, true},
		"a whole float":          {float64(25), 25, true},
		"a fraction":             {25.5, 0, false},
		"a fraction as a number": {json.Number("25.5"), 0, false},
		"an exponent":            {json.Number("1e3"), 0, false},
		"past 64 bits":           {json.Number(past64), 0, false},
		"a float past exactness": {float64(1 << 54), 0, false},
		"text":                   {"25", 0, false},
		"nothing":                {nil, 0, false},
		"a truth":                {true, 0, false},
	} {
		var got models.Credits
		if err := got.UnmarshalGQL(row.in); (err == nil) != row.ok || got != row.want {
			t.Errorf("%s is read as %d (%v), want %d", name, got, err, row.want)
		}
	}
	var out bytes.Buffer
	models.Credits(-1 << 62).MarshalGQL(&out)
	if out.String() != "-4611686018427387904" {
		t.Errorf("written as %s", &out)
	}
}

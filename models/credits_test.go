package models_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"agentmarket.space/server/models"
)

// TestCredits_Split checks that the shares sum to the budget, that the worker gets 90
// percent rounded down, and that neither share of a valid budget is 0.
func TestCredits_Split(t *testing.T) {
	t.Parallel()
	check := func(budget models.Credits) {
		worker, fee := budget.Split()
		if worker+fee != budget || 10*worker > 9*budget || 10*(worker+1) <= 9*budget {
			t.Errorf("%d is split into %d and %d, which is not 90 percent rounded down", budget, worker, fee)
		}
		if budget >= models.MinBudget && (worker < 1 || fee < 1) {
			t.Errorf("%d is split into %d for the worker and %d for the platform", budget, worker, fee)
		}
	}
	for n := range models.Credits(10_000) {
		check(n + 1)
		check(models.MaxBudget - n)
	}
	for budget, want := range map[models.Credits][2]models.Credits{
		1: {0, 1}, 2: {1, 1}, 9: {8, 1}, 10: {9, 1}, 11: {9, 2}, 15: {13, 2}, 25: {22, 3}, models.MaxBudget: {900_000_000, 100_000_000},
	} {
		if worker, fee := budget.Split(); worker != want[0] || fee != want[1] {
			t.Errorf("%d is split into %d and %d, want %v", budget, worker, fee, want)
		}
	}
}

// TestCredits_UnmarshalGQL checks that only integers are accepted, in every form that
// gqlgen passes.
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
		"a fraction":             {25.5, 0, false},
		"a whole float":          {float64(25), 0, false}, // 25.0 or 25e0 in a document
		"a fraction as a number": {json.Number("25.5"), 0, false},
		"an exponent":            {json.Number("1e3"), 1000, true},
		"a whole number with .0": {json.Number("25.0"), 25, true},
		"a huge exponent":        {json.Number("1e400"), 0, false},
		"more than 64 bits":      {json.Number(past64), 0, false},
		"text":                   {"25", 0, false},
		"nothing":                {nil, 0, false},
		"a boolean":              {true, 0, false},
	} {
		var got models.Credits
		if err := got.UnmarshalGQL(row.in); (err == nil) != row.ok || got != row.want {
			t.Errorf("%s is parsed as %d (%v), want %d", name, got, err, row.want)
		}
	}
	var out bytes.Buffer
	models.Credits(-1 << 62).MarshalGQL(&out)
	if out.String() != "-4611686018427387904" {
		t.Errorf("written as %s", &out)
	}
}

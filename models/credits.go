package models

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
)

// Credits is an amount of money in whole credits.
type Credits int64

// The bounds of a task's budget, in credits. MinBudget is the least that still
// pays the worker something: nine tenths of 1 is 0.
const (
	MinBudget Credits = 2
	MaxBudget Credits = 1_000_000_000
)

// FeePercent is the part of a budget that the platform keeps.
const FeePercent = 10

// Split shares a budget between worker and platform. The worker gets nine
// tenths rounded down, the platform the rest: 25 becomes 22 and 3.
func (c Credits) Split() (worker, fee Credits) {
	worker = c * (100 - FeePercent) / 100
	return worker, c - worker
}

// MarshalGQL writes the amount as a JSON number.
func (c Credits) MarshalGQL(w io.Writer) {
	_, _ = io.WriteString(w, strconv.FormatInt(int64(c), 10))
}

// UnmarshalGQL reads a whole number that is written as one; a point or an
// exponent, a string and anything past 64 bits are refused.
func (c *Credits) UnmarshalGQL(v any) error {
	switch v := v.(type) {
	case int:
		*c = Credits(v)
	case int64:
		*c = Credits(v)
	case json.Number:
		n, err := strconv.ParseInt(v.String(), 10, 64)
		if err != nil {
			return fmt.Errorf("credits must be a whole number, not %s", v)
		}
		*c = Credits(n)
	default:
		return fmt.Errorf("credits must be a whole number, not %T", v)
	}
	return nil
}

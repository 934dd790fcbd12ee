package models

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
)

// Credits is an amount of money in whole credits.
type Credits int64

// The limits of a task's budget, in credits. With a budget of 1 the worker would get
// 0.
const (
	MinBudget Credits = 2
	MaxBudget Credits = 1_000_000_000
)

// FeePercent is the platform's share of a budget.
const FeePercent = 10

// Split returns the shares of the worker and the platform. The worker's share is 90
// percent, rounded down: a budget of 25 becomes 22 and 3.
func (c Credits) Split() (worker, fee Credits) {
	worker = c * (100 - FeePercent) / 100
	return worker, c - worker
}

// MarshalGQL writes the amount as a JSON number.
func (c Credits) MarshalGQL(w io.Writer) {
	_, _ = io.WriteString(w, strconv.FormatInt(int64(c), 10))
}

// UnmarshalGQL reads an integer of at most 64 bits. It rejects strings and numbers
// with a decimal point or an exponent.
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

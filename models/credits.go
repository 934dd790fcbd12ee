package models

import (
	"encoding/json"
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

// UnmarshalGQL reads a whole number of at most 64 bits, from a variable in any spelling of
// JSON. In a document, a number with a decimal point or an exponent is a Float, and rejected
// like an Int is. The error is a [WholeNumberError].
func (c *Credits) UnmarshalGQL(v any) error {
	switch v := v.(type) {
	case int:
		*c = Credits(v)
	case int64:
		*c = Credits(v)
	case json.Number:
		n, err := ParseWholeNumber(v.String())
		if err != nil {
			return err
		}
		*c = Credits(n)
	case float64:
		return &WholeNumberError{"must be a whole number without a decimal point or an exponent"}
	default:
		return WrongNumber(v)
	}
	return nil
}

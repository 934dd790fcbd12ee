package models

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

// WholeNumberError is the error for a value that is not a whole number or not within 64
// bits. Its text follows the name of a field. It ends with the value as it was sent, or with
// the kind of a value that is an object or an array.
type WholeNumberError struct{ text string }

// Error returns the text, for example "must be a whole number, not 2.5".
func (e *WholeNumberError) Error() string { return e.text }

// maxShownValue is how many bytes of a wrong value an error shows.
const maxShownValue = 40

// maxExponent bounds the exponents that [ParseWholeNumber] calculates with. A body cannot
// have as many digits.
const maxExponent = 1 << 30

// ParseWholeNumber returns the whole number that a JSON value has, in any spelling that
// JSON allows for it: 2, 2.0, 2e0 and 20e-1 are the same integer of JSON Schema. The error
// for any other value is a [WholeNumberError]. The time and memory that it takes do not
// depend on the exponent.
func ParseWholeNumber(value string) (int64, error) {
	if n, err := strconv.ParseInt(value, 10, 64); err == nil { // by far the most common spelling
		return n, nil
	}
	number, sign := strings.CutPrefix(value, "-")
	mantissa, exponent, hasExponent := cutAtAny(number, "eE")
	shift := 0
	if hasExponent {
		var err error
		if shift, err = strconv.Atoi(exponent); err != nil && !errors.Is(err, strconv.ErrRange) {
			return 0, notWholeNumber(value)
		}
		shift = min(max(shift, -maxExponent), maxExponent)
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := whole + fraction
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, notWholeNumber(value)
	}
	digits = strings.TrimLeft(digits, "0")
	if digits == "" {
		return 0, nil
	}
	significant := strings.TrimRight(digits, "0")
	zeros := len(digits) - len(significant) - len(fraction) + shift
	if zeros < 0 {
		return 0, notWholeNumber(value)
	}
	if digits64 := len("9223372036854775807"); len(significant)+zeros > digits64 {
		return 0, outOfRange(value)
	}
	if sign {
		significant = "-" + significant
	}
	n, err := strconv.ParseInt(significant+strings.Repeat("0", zeros), 10, 64)
	if err != nil {
		return 0, outOfRange(value)
	}
	return n, nil
}

// WrongNumber returns the [WholeNumberError] for a decoded JSON value that is not a number.
func WrongNumber(value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return &WholeNumberError{"must be a whole number"} // not a value that JSON has
	}
	return notWholeNumber(string(text))
}

func notWholeNumber(value string) error {
	return &WholeNumberError{"must be a whole number, not " + shortened(value)}
}

func outOfRange(value string) error {
	return &WholeNumberError{"must be a whole number of at most 64 bits, not " + shortened(value)}
}

// shortened returns a JSON value as errors show it.
func shortened(value string) string {
	switch {
	case strings.HasPrefix(value, "{"):
		return "an object"
	case strings.HasPrefix(value, "["):
		return "an array"
	case len(value) <= maxShownValue:
		return value
	}
	end := maxShownValue
	for end > 0 && !utf8.RuneStart(value[end]) {
		end--
	}
	return value[:end] + "..."
}

// cutAtAny is strings.Cut for the first of several characters.
func cutAtAny(text, characters string) (before, after string, found bool) {
	if i := strings.IndexAny(text, characters); i >= 0 {
		return text[:i], text[i+1:], true
	}
	return text, "", false
}

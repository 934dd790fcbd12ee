package models_test

import (
	"math/big"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"agentmarket.space/server/models"
)

func TestParseWholeNumber(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"0": 0, "-0": 0, "0.0": 0, "0e9": 0, "-0.00e-9": 0, "0e999999999999999999999": 0, "0e-999999999999999999999": 0,
		"2": 2, "2.0": 2, "2e0": 2, "2E+0": 2, "20e-1": 2, "0.2e1": 2, "0.02E2": 2, "2.000e0": 2, "200.00e-2": 2, "-2.0": -2, "1.5e1": 15, "-1.25e2": -125,
		"9223372036854775807": 1<<63 - 1, "9223372036854775807.000": 1<<63 - 1, "-9223372036854775808": -1 << 63, "-9223372036854775808.0": -1 << 63,
		"9.223372036854775807e18": 1<<63 - 1, "1e18": 1e18, "0." + strings.Repeat("0", 99) + "3e100": 3, "3" + strings.Repeat("0", 99) + "e-99": 3,
		"9007199254740993.0": 9007199254740993, // not a float64
	} {
		if got, err := models.ParseWholeNumber(text); err != nil || got != want {
			t.Errorf("%s: got %d (%v), want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"2.5": "must be a whole number, not 2.5", "25e-1": "must be a whole number, not 25e-1", "-0.1": "must be a whole number, not -0.1",
		"1e-400": "must be a whole number, not 1e-400", "1e-99999999999999999999": "must be a whole number, not 1e-99999999999999999999",
		"2.0000000000000000000000000001": "must be a whole number, not 2.0000000000000000000000000001",
		`"2"`:                            `must be a whole number, not "2"`, "true": "must be a whole number, not true", "": "must be a whole number, not ",
		"[2]": "must be a whole number, not an array", `{"a":2}`: "must be a whole number, not an object", "0x2": "must be a whole number, not 0x2", "1_0": "must be a whole number, not 1_0",
		"1e400": "must be a whole number of at most 64 bits, not 1e400", "-1e400": "must be a whole number of at most 64 bits, not -1e400",
		"9223372036854775808":         "must be a whole number of at most 64 bits, not 9223372036854775808",
		"1e99999999999999999999":      "must be a whole number of at most 64 bits, not 1e99999999999999999999",
		"1e2147483648":                "must be a whole number of at most 64 bits, not 1e2147483648",
		strings.Repeat("9", 1<<20):    "must be a whole number of at most 64 bits, not " + strings.Repeat("9", 40) + "...",
		`"` + strings.Repeat("ü", 99): `must be a whole number, not "` + strings.Repeat("ü", 19) + "...",
	} {
		if got, err := models.ParseWholeNumber(text); err == nil || err.Error() != want {
			t.Errorf("%.50s: got %d (%v), want %s", text, got, err, want)
		}
	}
}

// TestParseWholeNumber_likeRational compares with math/big, which needs memory for every
// digit of a number.
func TestParseWholeNumber_likeRational(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`-?(0|[1-9][0-9]{0,21})(\.[0-9]{1,5})?([eE][+-]?[0-9]{1,2})?`).Draw(t, "text")
		rational, _ := new(big.Rat).SetString(text)
		got, err := models.ParseWholeNumber(text)
		if want := rational.IsInt() && rational.Num().IsInt64(); want != (err == nil) || want && strconv.FormatInt(got, 10) != rational.Num().String() {
			t.Fatalf("%s: got %d (%v), want %v", text, got, err, rational)
		}
	})
}

package models_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"agentmarket.space/server/models"
)

// TestTime_roundTrip checks that JSON and GraphQL write times in the same form, in UTC
// with microseconds, and parse times with any offset.
func TestTime_roundTrip(t *testing.T) {
	t.Parallel()
	noon := models.NewTime(time.Date(2026, 3, 13, 12, 0, 0, 0, time.UTC))
	for text, want := range map[string]struct {
		at      models.Time
		written string
	}{
		"2026-03-13T12:00:00Z":           {noon, "2026-03-13T12:00:00Z"},
		"2026-03-13T21:00:00+09:00":      {noon, "2026-03-13T12:00:00Z"},
		"2026-03-13T12:00:00.25Z":        {noon + 250_000, "2026-03-13T12:00:00.25Z"},
		"2026-03-13T12:00:00.000001Z":    {noon + 1, "2026-03-13T12:00:00.000001Z"},
		"2026-03-13T12:00:00.000000999Z": {noon, "2026-03-13T12:00:00Z"},
		"1970-01-01T00:00:00Z":           {0, "1970-01-01T00:00:00Z"},
		"1969-12-31T23:59:59.999999Z":    {-1, "1969-12-31T23:59:59.999999Z"},
		"9999-12-31T23:59:59.999999Z":    {253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"},
	} {
		var fromJSON, fromGraphQL models.Time
		if err := json.Unmarshal([]byte(`"`+text+`"`), &fromJSON); err != nil || fromJSON != want.at {
			t.Errorf("%s is parsed from JSON as %d (%v), want %d", text, fromJSON, err, want.at)
		}
		if err := fromGraphQL.UnmarshalGQL(text); err != nil || fromGraphQL != want.at {
			t.Errorf("%s is parsed from GraphQL as %d (%v), want %d", text, fromGraphQL, err, want.at)
		}
		asJSON, err := json.Marshal(want.at)
		var asGraphQL bytes.Buffer
		want.at.MarshalGQL(&asGraphQL)
		if quoted := `"` + want.written + `"`; err != nil || string(asJSON) != quoted || asGraphQL.String() != quoted {
			t.Errorf("%s is written as %s and %s (%v)", text, asJSON, &asGraphQL, err)
		}
		if std := want.at.AsTime(); std.Location() != time.UTC || models.NewTime(std) != want.at {
			t.Errorf("%s converted to time.Time is %s", text, std)
		}
	}
	if later := noon.Add(90*time.Second + 999*time.Nanosecond); later != noon+90_000_000 {
		t.Errorf("90 seconds later is %s", later)
	}
}

// TestTime_rejectsInvalid checks that an invalid time is an error and does not change the
// value.
func TestTime_rejectsInvalid(t *testing.T) {
	t.Parallel()
	for _, in := range []any{"", "now", "2026-03-13", "2026-03-13T12:00:00", "2026-02-30T12:00:00Z", 1_773_403_200, nil, true} {
		at := models.Time(7)
		if err := at.UnmarshalGQL(in); err == nil || at != 7 {
			t.Errorf("%v is parsed as %s", in, at)
		}
		text, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &at); err == nil && in != nil || at != 7 {
			t.Errorf("%s is parsed from JSON as %s", text, at)
		}
	}
}

// TestTime_storedAsInteger checks that Time has no method that changes how it is stored.
// Another form would sort incorrectly.
func TestTime_storedAsInteger(t *testing.T) {
	t.Parallel()
	timeType := reflect.TypeFor[*models.Time]()
	for _, method := range []string{"Scan", "Value", "GormDataType"} {
		if _, ok := timeType.MethodByName(method); ok {
			t.Errorf("models.Time has a method %s, but must be stored as an INTEGER", method)
		}
	}
}

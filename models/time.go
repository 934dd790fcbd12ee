package models

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"
)

// Time is a moment in UTC as microseconds since 1970, the form it is stored in.
type Time int64

// NewTime returns t as a [Time]; what is below a microsecond is dropped.
func NewTime(t time.Time) Time { return Time(t.UnixMicro()) }

// AsTime returns the moment as a standard UTC time.
func (t Time) AsTime() time.Time { return time.UnixMicro(int64(t)).UTC() }

// Add returns the moment d later.
func (t Time) Add(d time.Duration) Time { return t + Time(d.Microseconds()) }

// String returns the moment as RFC 3339 with as many digits of the second as
// it needs, for example 2026-03-13T12:00:00Z.
func (t Time) String() string { return t.AsTime().Format(time.RFC3339Nano) }

// MarshalJSON writes the moment as an RFC 3339 string.
func (t Time) MarshalJSON() ([]byte, error) { return []byte(strconv.Quote(t.String())), nil }

// UnmarshalJSON reads an RFC 3339 string.
func (t *Time) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	return t.UnmarshalGQL(s)
}

// MarshalGQL writes the moment as an RFC 3339 string.
func (t Time) MarshalGQL(w io.Writer) {
	_, _ = io.WriteString(w, strconv.Quote(t.String()))
}

// UnmarshalGQL reads an RFC 3339 string.
func (t *Time) UnmarshalGQL(v any) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("a moment must be an RFC 3339 string, not %T", v)
	}
	std, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return fmt.Errorf("a moment must be RFC 3339: %w", err)
	}
	*t = NewTime(std)
	return nil
}

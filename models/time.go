package models

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"
)

// Time is a UTC time in microseconds since 1970. The database stores this number.
type Time int64

// NewTime converts t to a [Time], truncated to microseconds.
func NewTime(t time.Time) Time { return Time(t.UnixMicro()) }

// AsTime returns t as a [time.Time] in UTC.
func (t Time) AsTime() time.Time { return time.UnixMicro(int64(t)).UTC() }

// Add returns t+d.
func (t Time) Add(d time.Duration) Time { return t + Time(d.Microseconds()) }

// String returns t in RFC 3339 form without trailing zeros of the second, for example
// 2026-03-13T12:00:00Z.
func (t Time) String() string { return t.AsTime().Format(time.RFC3339Nano) }

// MarshalJSON writes t as an RFC 3339 string.
func (t Time) MarshalJSON() ([]byte, error) { return []byte(strconv.Quote(t.String())), nil }

// UnmarshalJSON reads an RFC 3339 string.
func (t *Time) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	return t.UnmarshalGQL(s)
}

// MarshalGQL writes t as an RFC 3339 string.
func (t Time) MarshalGQL(w io.Writer) {
	_, _ = io.WriteString(w, strconv.Quote(t.String()))
}

// UnmarshalGQL reads an RFC 3339 string.
func (t *Time) UnmarshalGQL(v any) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("a time must be an RFC 3339 string, not %T", v)
	}
	std, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return fmt.Errorf("a time must be in RFC 3339 form: %w", err)
	}
	*t = NewTime(std)
	return nil
}

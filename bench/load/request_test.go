package load

import (
	"errors"
	"strings"
	"testing"
)

func TestRequest_stamped(t *testing.T) {
	t.Parallel()
	r := NewRequest("POST", "/graphql", []string{"X-API-Key: k"}, `{"a":"bench-#########","b":"#########"}`, "", 0)
	got := string(r.stamped(nil, 42))
	want := "POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: k\r\n" +
		"Content-Type: application/json\r\nContent-Length: 39\r\n\r\n" +
		`{"a":"bench-000000042","b":"000000042"}`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if number, ok := readStamp([]byte(got), []byte("bench-")); number != 42 || !ok {
		t.Errorf("read %d, %t back", number, ok)
	}
	for _, text := range []string{"", "bench-12", "bench-12345678x"} {
		if _, ok := readStamp([]byte(text), []byte("bench-")); ok {
			t.Errorf("%q was read as a number", text)
		}
	}
}

func TestRequest_checksResponse(t *testing.T) {
	t.Parallel()
	r := NewRequest("GET", "/", nil, "", `"id":`, 2)
	for _, row := range []struct {
		status int
		answer string
		right  bool
	}{
		{200, `[{"id":1},{"id":2}]`, true},
		{201, `[{"id":1},{"id":2}]`, true},
		{500, `[{"id":1},{"id":2}]`, false},
		{200, `[{"id":1}]`, false},
		{200, `{"errors":[],"data":[{"id":1},{"id":2}]}`, false},
	} {
		err := r.check(row.status, []byte(row.answer))
		if (err == nil) != row.right || err != nil && (!errors.Is(err, ErrWrongResponse) || !strings.Contains(err.Error(), row.answer)) {
			t.Errorf("status %d, %s: %v", row.status, row.answer, err)
		}
	}
}

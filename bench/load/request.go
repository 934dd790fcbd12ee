package load

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// Stamp is replaced in a request by a number with the same number of digits that is unique
// in the run.
const Stamp = "#########"

// Request is a rendered HTTP request and the expected response.
type Request struct {
	raw    []byte
	stamps []int

	want      []byte
	wantCount int
}

// NewRequest renders a request. A header is a line without its end. A response is correct
// if its status is 200, 201 or 204, it contains no "errors", and it contains want the given
// number of times.
func NewRequest(method, path string, headers []string, body, want string, times int) Request {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\n", method, path)
	for _, header := range headers {
		b.WriteString(header + "\r\n")
	}
	if body != "" {
		fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n" + body)
	r := Request{raw: b.Bytes(), want: []byte(want), wantCount: times}
	for at := 0; ; at += len(Stamp) {
		next := bytes.Index(r.raw[at:], []byte(Stamp))
		if next < 0 {
			return r
		}
		at += next
		r.stamps = append(r.stamps, at)
	}
}

// stamped appends the request with its number to dst.
func (r Request) stamped(dst []byte, number int64) []byte {
	start := len(dst)
	dst = append(dst, r.raw...)
	for _, at := range r.stamps {
		putStamp(dst[start+at:], number)
	}
	return dst
}

// putStamp writes number over the first len(Stamp) bytes of dst.
func putStamp(dst []byte, number int64) {
	for i := len(Stamp) - 1; i >= 0; i-- {
		dst[i] = byte('0' + number%10)
		number /= 10
	}
}

// readStamp reads the number that follows prefix in a response.
func readStamp(answer, prefix []byte) (number int, ok bool) {
	at := bytes.Index(answer, prefix)
	if at < 0 || len(answer) < at+len(prefix)+len(Stamp) {
		return 0, false
	}
	number, err := strconv.Atoi(string(answer[at+len(prefix) : at+len(prefix)+len(Stamp)]))
	return number, err == nil
}

// readNumber reads the digits that follow prefix in a response.
func readNumber(answer, prefix []byte) (number int64, ok bool) {
	_, rest, _ := bytes.Cut(answer, prefix)
	for _, digit := range rest {
		if digit < '0' || digit > '9' {
			break
		}
		number, ok = number*10+int64(digit-'0'), true
	}
	return number, ok
}

// ErrWrongResponse is returned, wrapped with the response, if a response is not as
// expected.
var ErrWrongResponse = errors.New("wrong response")

func (r Request) check(status int, answer []byte) error {
	switch {
	case status != 200 && status != 201 && status != 204, bytes.Contains(answer, []byte(`"errors":`)):
	case r.wantCount > 0 && bytes.Count(answer, r.want) != r.wantCount:
	default:
		return nil
	}
	return fmt.Errorf("%w: status %d, want %d times %q: %.300s", ErrWrongResponse, status, r.wantCount, r.want, answer)
}

package executor

import (
	"net/http"
	"testing"

	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// TestReadResult_changedText: a result that decoding would change is a failure, not a
// different result.
func TestReadResult_changedText(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"result": "a \u00e9 \ud83d\ude00 \\ud800 \n"}`:   "a é 😀 \\ud800 \n",
		"{\"result\": \"\xef\xbf\xbd \\ufffd\"}":           "\uFFFD \uFFFD",
		"{\"result\": \"a\xff\xfe\"}":                      "",
		`{"result": "\ud800"}`:                             "",
		`{"result": "\ude00\ud83d"}`:                       "",
		`{"result": "\ud83d\n"}`:                           "",
		`{"result": "\ud83d\ud83d\ude00"}`:                 "",
		"{\"result\": \"fine\", \"note\": \"\xc3\"}":       "",
		`{"result": "\\\ud83d\ude00\\\\", "more": "\\\""}`: "\\😀\\\\",
	} {
		response := &outbound.Response{Status: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(body)}
		got, err := readResult(response)
		testutil.Equal(t, body, got, want)
		if want == "" {
			testutil.Equal(t, "code of "+body, models.CodeOf(err), models.ExecutionFailed)
		}
	}
}

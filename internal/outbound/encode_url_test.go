package outbound

import (
	"net/url"
	"testing"

	"agentmarket.space/server/internal/test/testutil"
)

// TestEncodeURL: what a request must not contain is encoded, and nothing is encoded twice.
func TestEncodeURL(t *testing.T) {
	t.Parallel()
	c := New(Options{})
	for raw, want := range map[string]string{
		"https://example.com":                        "https://example.com",
		"https://example.com?a=ü":                    "https://example.com?a=%C3%BC",
		"https://example.com/hook?name=ü":            "https://example.com/hook?name=%C3%BC",
		"https://example.com/hook?name=%C3%BC&b=%c3": "https://example.com/hook?name=%C3%BC&b=%c3",
		"https://example.com/ü/%2F?q=ü%2F":           "https://example.com/%C3%BC/%2F?q=%C3%BC%2F",
		"https://example.com/a%20b?100%&50%2&%zz=%":  "https://example.com/a%20b?100%25&50%252&%25zz=%25",
		"https://example.com/?a=<\"'>{|}\\^`":        "https://example.com/?a=%3C%22'%3E%7B%7C%7D%5C%5E%60",
		"https://example.com/?a=b+c&d=?/:@[]!$*,;":   "https://example.com/?a=b+c&d=?/:@[]!$*,;",
		"https://example.com/x#ü":                    "https://example.com/x",
		"https://bücher.example.com/ü":               "https://xn--bcher-kva.example.com/%C3%BC",
	} {
		checked, err := c.CheckURL("url", raw)
		testutil.Must(t, err)
		request, err := c.newRequest(t.Context(), checked, nil, nil)
		testutil.Must(t, err)
		target := request.URL.RequestURI()
		wanted, err := url.Parse(want)
		testutil.Must(t, err)
		testutil.Equal(t, raw, target, wanted.RequestURI())
		testutil.Equal(t, "encoded twice: "+raw, encodeURL(encodeURL(raw)), encodeURL(raw))
	}
}

package transport_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"agentmarket.space/server/internal/test/testutil"
)

const byteOrderMark = "\ufeff"

// echoBody is the body of a request that returns a variable, which is given as JSON.
func echoBody(variable string) string {
	return fmt.Sprintf(`{"query":"query($text: String) { echo(text: $text) }","variables":{"text":%s}}`, variable)
}

// TestText_unchanged checks that every transport passes on text as it was sent, in
// variables and in documents, and passes over a byte order mark before JSON.
func TestText_unchanged(t *testing.T) {
	t.Parallel()
	server := startServer(t, nil)
	client := server.connect(t)
	for text, want := range map[string]string{ // JSON strings; GraphQL has the same escapes
		`"\ud83d\ude00"`:              "😀",
		`"\uD83D\uDE00 \u0041\u00e9"`: "😀 Aé",
		`"\\ud83d"`:                   `\ud83d`,
		`"\ufffd \uffff"`:             "\ufffd \uffff",
		`"\u0000\u0001\b\f\n\r\t"`:    "\x00\x01\b\f\n\r\t",
		`"\ufeff😀\u2028"`:             "\ufeff😀\u2028",
	} {
		encoded, err := json.Marshal(want)
		testutil.Must(t, err)
		data := `{"data":{"echo":` + string(encoded) + `}}`
		document := "{ echo(text: " + text + ") }"
		for name, body := range map[string]string{
			"a variable": echoBody(text), "a document": requestBody(document), "a byte order mark": byteOrderMark + echoBody(text), "one before the document": requestBody(byteOrderMark + document),
		} {
			what := fmt.Sprintf("%s: %s", name, text)
			testutil.Equal(t, what, server.do(t, http.MethodPost, "", body, "Content-Type", jsonType).body, data)
			events := server.do(t, http.MethodPost, "", body, "Content-Type", jsonType, "Accept", eventStreamType).body
			if !strings.Contains(events, nextEvent(data)) {
				t.Errorf("%s: got %s, want an event with %s", what, events, data)
			}
			payload, hasMark := strings.CutPrefix(body, byteOrderMark)
			mark := ""
			if hasMark {
				mark = byteOrderMark
			}
			client.send(mark + `{"id":"a","type":"subscribe","payload":` + payload + `}`)
			client.expect(`{"id":"a","type":"next","payload":`+data+`}`, `{"id":"a","type":"complete"}`)
		}
		query := "?query=" + url.QueryEscape("query($text: String) { echo(text: $text) }") + "&variables=" + url.QueryEscape(`{"text":`+text+`}`)
		testutil.Equal(t, "GET "+text, server.do(t, http.MethodGet, query, "").body, data)
	}
}

// TestText_halfAPair checks that every transport rejects a string that has half of a
// surrogate pair, with the name of the field. A socket stays open.
func TestText_halfAPair(t *testing.T) {
	t.Parallel()
	server := startServer(t, nil)
	client := server.connect(t)
	for body, field := range map[string]string{
		echoBody(`"cut \ud83d"`):                                                "text",
		echoBody(`"\ude00\ud83d"`):                                              "text",
		requestBody(`{ echo(text: "cut \ud83d") }`):                             "text",
		requestBody(`{ a: echo(text: "\ud83d\ude00", text: "x\uDE00") }`):       "text",
		requestBody(`query($v: String = "\ud83d\u{1F600}") { echo(text: $v) }`): "v",
		`{"query":"{ echo(text: \"\ud83d\") }"}`:                                "query",
		`{"query":"{ hello }","operationName":"\ud83d"}`:                        "operationName",
		`{"query":"{ hello }","variables":{"a":[{"b":"\ud83d"}]}}`:              "b",
		`{"query":"{ hello }","extensions":{"c":"\udfff"}}`:                     "c",
	} {
		message := field + ` must not have half of a surrogate pair, such as \\ud83d`
		want := fmt.Sprintf(`{"message":"%s","extensions":{"code":"INVALID_INPUT","field":"%s"}}`, message, field)
		for _, accept := range []string{jsonType, eventStreamType} {
			if got := server.do(t, http.MethodPost, "", body, "Content-Type", jsonType, "Accept", accept); got.body != `{"errors":[`+want+`]}` {
				t.Errorf("%s as %s: got %s, want %s", body, accept, got.body, want)
			}
		}
		client.send(`{"id":"a","type":"subscribe","payload":` + body + `}`)
		client.expect(`{"id":"a","type":"error","payload":[` + want + `]}`)
	}
	client.subscribe("a", "{ hello }")
	client.expect(`{"id":"a","type":"next","payload":{"data":{"hello":"world"}}}`, `{"id":"a","type":"complete"}`)
	for query, message := range map[string]string{
		"?query={hello}&variables=" + url.QueryEscape(`{"a":"\ud83d"}`): "a must not have half of a surrogate pair",
		"?query={hello}&variables=%zz":                                  "the query string is malformed",
		"?query={hello}&variables={};operationName=x":                   "the query string is malformed",
		"?query={hello}&operationName=%ff":                              "operationName must be valid UTF-8",
	} {
		if got := server.do(t, http.MethodGet, query, ""); !strings.Contains(got.body, message) {
			t.Errorf("%s: got %s, want %s", query, got.body, message)
		}
	}
}

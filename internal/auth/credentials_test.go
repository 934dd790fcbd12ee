package auth_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"agentmarket.space/server/internal/auth"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// refused stands for UNAUTHENTICATED in the tables below.
const refused = "refused"

func checkKey(t *testing.T, input, got string, err error, want string) {
	t.Helper()
	if want == refused {
		if models.CodeOf(err) != models.Unauthenticated {
			t.Errorf("%s: got key %q, %v, want UNAUTHENTICATED", input, got, err)
		}
		return
	}
	if err != nil || got != want {
		t.Errorf("%s: got key %q, %v, want %q", input, got, err, want)
	}
}

// TestKeyFromHeader checks that a key is found in every allowed spelling, and that any other
// credential is rejected rather than ignored.
func TestKeyFromHeader(t *testing.T) {
	t.Parallel()
	for lines, want := range map[string]string{
		"":                                     "",
		"Accept: */*":                          "",
		"X-API-Key: k":                         "k",
		"x-api-key: k":                         "k",
		"Authorization: Bearer k":              "k",
		"authorization: bearer k":              "k",
		"AUTHORIZATION: BEARER k":              "k",
		"Authorization: bEaReR   k":            "k",
		"Authorization: Bearer k, l":           "k, l",
		"X-API-Key: k|X-API-Key: k":            "k",
		"X-API-Key: k|Authorization: Bearer k": "k",
		"X-API-Key: k|Authorization: bearer k": "k",

		"X-API-Key:":                           refused,
		"Authorization:":                       refused,
		"Authorization: Bearer":                refused,
		"Authorization: Bearer ":               refused,
		"Authorization: k":                     refused,
		"Authorization: Bearer: k":             refused,
		"Authorization: Bearer\tk":             refused,
		"Authorization: Basic dXNlcjpwYXNz":    refused,
		"Authorization: Token k":               refused,
		"Authorization: Digest username=\"x\"": refused,
		"Authorization: Bearerk":               refused,
		"X-API-Key: k|X-API-Key: l":            refused,
		"X-API-Key: k|X-API-Key:":              refused,
		"X-API-Key: k|Authorization: Bearer l": refused,
		"X-API-Key: k|Authorization: Basic k":  refused,
		"X-API-Key: k|Authorization: Bearer":   refused,
		"X-API-Key:|Authorization: Bearer k":   refused,
	} {
		header := http.Header{}
		for line := range strings.SplitSeq(lines, "|") {
			if name, value, ok := strings.Cut(line, ":"); ok {
				header.Add(name, strings.TrimPrefix(value, " "))
			}
		}
		got, err := auth.KeyFromHeader(header)
		checkKey(t, lines, got, err, want)
	}
}

// TestKeyFromPayload checks the same for the payload of connection_init.
func TestKeyFromPayload(t *testing.T) {
	t.Parallel()
	for payload, want := range map[string]string{
		`null`:                                     "",
		`{}`:                                       "",
		`{"token":"k","headers":{"a":1}}`:          "",
		`{"headers":"k"}`:                          "",
		`{"apiKey":"k"}`:                           "k",
		`{"APIKEY":"k"}`:                           "k",
		`{"X-API-Key":"k"}`:                        "k",
		`{"x-api-key":"k"}`:                        "k",
		`{"x-api-key":" k "}`:                      "k",
		`{"Authorization":"Bearer k"}`:             "k",
		`{"authorization":"bearer k"}`:             "k",
		`{"headers":{"X-API-Key":"k"}}`:            "k",
		`{"headers":{"authorization":"Bearer k"}}`: "k",
		`{"apiKey":"k","headers":{"authorization":"Bearer k"}}`: "k",
		`{"apiKey":"k","X-API-Key":"k","x-api-key":"k"}`:        "k",

		`{"apiKey":""}`:                              refused,
		`{"apiKey":" "}`:                             refused,
		`{"apiKey":null}`:                            refused,
		`{"apiKey":7}`:                               refused,
		`{"apiKey":["k"]}`:                           refused,
		`{"X-API-Key":{"key":"k"}}`:                  refused,
		`{"Authorization":"k"}`:                      refused,
		`{"Authorization":"Bearer "}`:                refused,
		`{"Authorization":"Basic k"}`:                refused,
		`{"authorization":true}`:                     refused,
		`{"apiKey":"k","X-API-Key":"l"}`:             refused,
		`{"apiKey":"k","authorization":"Bearer l"}`:  refused,
		`{"apiKey":"k","x-api-key":""}`:              refused,
		`{"headers":{"X-API-Key":""}}`:               refused,
		`{"apiKey":"k","headers":{"X-API-Key":"l"}}`: refused,
		`{"headers":{"Authorization":"Basic abc"}}`:  refused,
	} {
		var decoded map[string]any
		testutil.Must(t, json.Unmarshal([]byte(payload), &decoded))
		got, err := auth.KeyFromPayload(decoded)
		checkKey(t, payload, got, err, want)
	}
}

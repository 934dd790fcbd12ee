package jsontext_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"agentmarket.space/server/internal/jsontext"
)

func TestUnpairedSurrogate(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{ // the path, "" for the outermost object
		`{"title":"cut \ud83d"}`:                                "title",
		`{"title":"\uD83Dx"}`:                                   "title",
		`{"title":"\ude00"}`:                                    "title",
		`{"title":"\ude00\ud83d"}`:                              "title",
		`{"title":"\ud83d\ud83d\ude00"}`:                        "title",
		`{"title":"\ud83d\n\ude00"}`:                            "title",
		`{"title":"\ud83d\\ude00"}`:                             "title",
		`{"title":"\\\ud83d"}`:                                  "title",
		`{"a":1,"words":["x",{"b":"y"},"\udfff"],"c":"\u0041"}`: "words",
		`{"a":{"b":{"c" : "\ud800"}},"d":1}`:                    "a b c",
		`{"a":{"b":1},"d":"\ud800"}`:                            "d",
		`{"a":{"b":1,"\ud800":2}}`:                              "a", // a name: the object around it
		`{"\ud800":2}`:                                          "",
		`"\ud800"`:                                              "",
		`["\ud800"]`:                                            "",
		`{"a\"b":"\ud800"}`:                                     `a"b`,
	} {
		if path, found := jsontext.UnpairedSurrogate([]byte(text)); !found || strings.Join(path, " ") != want {
			t.Errorf("%s: got %q, %t, want %q", text, path, found, want)
		}
	}
	for _, text := range []string{
		`{}`, `{"title":"\ud83d\ude00"}`, `{"title":"\uD83D\uDE00\ud83d\ude00"}`, `{"title":"\\ud83d"}`, `{"title":"\\\\ud83d \u0041"}`, `{"title":"😀 \u0041 \ufffd"}`,
		`{"\ud83d\ude00":["\udbff\udfff"]}`, `{"a":"\"\\","b":"\u0000\uFFFF\uE000\uD7FF"}`, `[[[{"a":[]}]]]`,
	} {
		if path, found := jsontext.UnpairedSurrogate([]byte(text)); found {
			t.Errorf("%s: found one at %q", text, path)
		}
	}
}

// FuzzUnpairedSurrogate checks that valid JSON without such a string decodes without a
// replacement character, and that nothing panics.
func FuzzUnpairedSurrogate(f *testing.F) {
	for _, seed := range []string{`{"a":"\ud83d"}`, `["\ud83d\ude00",{"b":"\\u"}]`, `"\udc00"`, `{"a":{"b":[1,"\u00e9"]}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !json.Valid(text) {
			return
		}
		_, found := jsontext.UnpairedSurrogate(text)
		var value any
		if err := json.Unmarshal(text, &value); err != nil {
			return // too deep
		}
		if slices.ContainsFunc([]string{"\ufffd", `\ufffd`, `\uFFFD`}, func(s string) bool { return strings.Contains(strings.ToLower(string(text)), strings.ToLower(s)) }) ||
			strings.ToValidUTF8(string(text), "") != string(text) {
			return // the text itself has replacement characters
		}
		decoded, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		if replaced := strings.Contains(string(decoded), "\ufffd"); replaced && !found {
			t.Errorf("%s decodes to %s", text, decoded)
		}
	})
}

package negotiate_test

import (
	"strings"
	"testing"

	"agentmarket.space/server/internal/negotiate"
)

// TestBest checks the rules of RFC 9110, section 12.5.1: weights, the most specific range
// decides, q=0 refuses, order breaks ties.
func TestBest(t *testing.T) {
	t.Parallel()
	const json, graphql, stream = "application/json", "application/graphql-response+json", "text/event-stream"
	for _, row := range []struct{ accept, want string }{
		{"", json},
		{" , ,", json},
		{"*/*", json},
		{"*", json},
		{"application/*", json},
		{"text/*", stream},
		{json, json},
		{graphql + ", " + json, graphql},
		{json + ", " + graphql, json},
		{"APPLICATION/GraphQL-Response+JSON", graphql},
		{json + ";q=0.9, " + graphql, graphql},
		{graphql + ";q=0.9, " + json, json},
		{graphql + ";q=0.001", graphql},
		{graphql + "; Q=0.2 , " + json + " ; q=0.3", json},

		{stream, stream},
		{stream + ", " + json, stream},
		{json + ", " + stream, json},
		{stream + ";q=0.5, " + json + ";q=0.6", json},
		{"*/*, " + stream, json},
		{stream + ", */*", stream},
		{stream + ", */*;q=0.1", stream},
		{stream + ";q=0.9, */*", json},

		{json + ";q=0", ""},
		{json + ";q=0.000, */*", graphql},
		{"*/*;q=0", ""},
		{"*/*;q=0, " + stream, stream},
		{"application/*;q=0, */*", stream},
		{"application/*;q=0, " + graphql, graphql},
		{"text/*;q=0, */*;q=0.1", json},
		{stream + ";q=0, text/*, " + json + ";q=0.1", json},
		{"application/*;q=0.9, " + json + ";q=0.1", graphql},
		{json + ";q=0.1, application/*;q=0.2, */*;q=0.3", stream},

		{json + ";charset=utf-8", json},
		{json + `;charset="UTF-8";q=0.5, ` + stream + ";q=0.4", json},
		{json + ";charset=latin1", ""},
		{json + ";charset=latin1, " + stream + ";q=0.1", stream},
		{json + ";charset=utf-8;q=0, " + json, ""},
		{json + ";indent=4", json},
		{json + ";version=1;q=0, " + json, json},
		{json + ";version=1, " + json + ";q=0", ""},
		{`multipart/mixed;boundary="a,b;c\",d";subscriptionSpec=1.0, ` + json, json},
		{`multipart/mixed;boundary="text/event-stream, */*"`, ""},

		{"text/html", ""},
		{"text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", json},
		{"nonsense", ""},
		{"json", ""},
		{"*/json", ""},
		{json + ";q=nonsense", ""},
		{json + ";q=-1", ""},
		{json + ";q=1.1", ""},
		{json + ";q=NaN", ""},
		{json + ";q=1;q=0", ""},
		{json + ";q=, " + stream, stream},
		{"x-text/event-stream", ""},
		{"text/event-stream+json", ""},
		{"text/plain;note=text/event-stream", ""},
	} {
		for name, values := range map[string][]string{"one header": {row.accept}, "several headers": strings.Split(row.accept, ", ")} {
			if name == "several headers" && strings.Contains(row.accept, `"`) {
				continue
			}
			if got := negotiate.Parse(values).Best(json, graphql, stream); got != row.want {
				t.Errorf("%s, Accept: %s: got %q, want %q", name, row.accept, got, row.want)
			}
		}
	}
	if got := negotiate.Parse(nil).Best(stream, json); got != stream {
		t.Errorf("without a header: got %q, want the first offer", got)
	}
}

// TestParse_longHeader checks that a header of the maximum size does not take long.
func TestParse_longHeader(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a/b;c=d,", 2000) + "text/event-stream;q=0.1"
	if got := negotiate.Parse([]string{long}).Best("application/json", "text/event-stream"); got != "text/event-stream" {
		t.Errorf("got %q", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"*/*", `a/b;c="d,e";q=0.5, */*;q=0`, `"`, `a/b;c="\`, ";;;", ",", "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if best := negotiate.Parse([]string{header}).Best("application/json", "text/event-stream"); best != "" && best != "application/json" && best != "text/event-stream" {
			t.Errorf("got %q", best)
		}
	})
}

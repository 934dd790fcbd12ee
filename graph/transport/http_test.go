package transport_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"agentmarket.space/server/graph/transport"
)

const (
	jsonType    = "application/json"
	graphqlType = "application/graphql-response+json"
)

// TestHTTP checks the status and body of responses against the rules of GraphQL over
// HTTP.
func TestHTTP(t *testing.T) {
	t.Parallel()
	server := startServer(t, func(o *transport.Options) { o.MaxBody = 2000 })
	type headers []string
	sent := func(contentType string) headers { return headers{"Content-Type", contentType} }
	accept := func(value string) headers { return headers{"Content-Type", jsonType, "Accept", value} }
	valid := requestBody("{ hello }")
	const hello = `{"data":{"hello":"world"}}`
	for name, tt := range map[string]struct {
		method, query, body string
		headers             headers
		status              int
		want                string
	}{
		"query":                       {"POST", "", valid, sent(jsonType), 200, hello},
		"query by GET":                {"GET", "?query={hello}", "", nil, 200, hello},
		"variables by GET":            {"GET", "?query=query($t:String){echo(text:$t)}&variables=" + url.QueryEscape(`{"t":"x"}`), "", nil, 200, `{"data":{"echo":"x"}}`},
		"mutation":                    {"POST", "", requestBody("mutation { change }"), sent(jsonType), 200, `{"data":{"change":"world"}}`},
		"charset":                     {"POST", "", valid, sent(jsonType + "; charset=UTF-8"), 200, hello},
		"large number is not rounded": {"POST", "", `{"query":"query($t:String){echo(text:$t)}","variables":{"t":"x"},"extensions":{"n":12345678901234567890}}`, sent(jsonType), 200, `{"data":{"echo":"x"}}`},

		"invalid document, JSON":         {"POST", "", requestBody("{ nothing }"), accept(jsonType), 200, `{"errors":[{"message":"Cannot query field`},
		"invalid document, GraphQL type": {"POST", "", requestBody("{ nothing }"), accept(graphqlType), 400, `{"errors":[{"message":"Cannot query field`},
		"syntax error, JSON":             {"POST", "", requestBody("{"), accept(jsonType), 200, `GRAPHQL_PARSE_FAILED`},
		"syntax error, GraphQL type":     {"POST", "", requestBody("{"), accept(graphqlType), 400, `GRAPHQL_PARSE_FAILED`},

		"empty Accept":                {"POST", "", valid, accept(""), 200, hello},
		"wildcard Accept":             {"POST", "", valid, accept("text/html, */*;q=0.1"), 200, hello},
		"unsupported Accept":          {"POST", "", valid, accept("text/html"), 406, `"code":"INVALID_INPUT"`},
		"Accept with zero weight":     {"POST", "", valid, accept("application/json;q=0"), 406, `"code":"INVALID_INPUT"`},
		"Accept with another charset": {"POST", "", valid, accept("application/json;charset=latin1"), 406, `"code":"INVALID_INPUT"`},

		"form":                {"POST", "", "query={hello}", sent("application/x-www-form-urlencoded"), 415, `"code":"UNSUPPORTED_MEDIA_TYPE"`},
		"multipart form":      {"POST", "", valid, sent("multipart/form-data; boundary=x"), 415, `"code":"UNSUPPORTED_MEDIA_TYPE"`},
		"plain text":          {"POST", "", valid, sent("text/plain"), 415, `"code":"UNSUPPORTED_MEDIA_TYPE"`},
		"application/graphql": {"POST", "", "{ hello }", sent("application/graphql"), 415, `"code":"UNSUPPORTED_MEDIA_TYPE"`},
		"no content type":     {"POST", "", valid, nil, 415, `"code":"UNSUPPORTED_MEDIA_TYPE"`},
		"latin1 charset":      {"POST", "", valid, sent(jsonType + ";charset=latin1"), 415, `"code":"UNSUPPORTED_MEDIA_TYPE"`},
		"PUT":                 {"PUT", "", valid, sent(jsonType), 405, `"code":"METHOD_NOT_ALLOWED"`},
		"mutation by GET":     {"GET", "?query=mutation{change}", "", nil, 405, `"code":"METHOD_NOT_ALLOWED"`},
		"subscription":        {"POST", "", requestBody("subscription { silence }"), sent(jsonType), 400, `subscribe over a WebSocket`},
		"body too large":      {"POST", "", requestBody(strings.Repeat(" ", 2000)), sent(jsonType), 413, `"code":"PAYLOAD_TOO_LARGE"`},

		"broken JSON":               {"POST", "", `{"query":"{ hello }","secret":"hunter2`, sent(jsonType), 400, `the request is not valid JSON`},
		"two JSON values":           {"POST", "", valid + valid, sent(jsonType), 400, `the request is not valid JSON`},
		"batch":                     {"POST", "", "[" + valid + "]", sent(jsonType), 400, `batching is not supported`},
		"JSON string":               {"POST", "", `"hunter2"`, sent(jsonType), 400, `must be a JSON object`},
		"empty body":                {"POST", "", "", sent(jsonType), 400, `must be a JSON object`},
		"invalid UTF-8":             {"POST", "", "{\"query\":\"{ hello } # \xff\"}", sent(jsonType), 400, `must be valid UTF-8`},
		"invalid UTF-8 by GET":      {"GET", "?query={hello}&variables=%7B%22a%22:%22%FF%22%7D", "", nil, 400, `variables must be valid UTF-8`},
		"no query":                  {"POST", "", `{"variables":{}}`, sent(jsonType), 400, `the request has no query`},
		"two queries by GET":        {"GET", "?query={hello}&query={self}", "", nil, 400, `more than one query`},
		"two variables by GET":      {"GET", "?query={hello}&variables={}&variables={}", "", nil, 400, `more than one variables`},
		"no query by GET":           {"GET", "", "", nil, 400, `the request has no query`},
		"null query":                {"POST", "", `{"query":null}`, sent(jsonType), 400, `the request has no query`},
		"query of the wrong type":   {"POST", "", `{"query":{"hunter2":1}}`, sent(jsonType), 400, `query has the wrong type`},
		"array of variables":        {"POST", "", `{"query":"{ hello }","variables":["hunter2"]}`, sent(jsonType), 400, `variables has the wrong type`},
		"array of variables by GET": {"GET", "?query={hello}&variables=[]", "", nil, 400, `variables must be a JSON object`},
		"invalid extensions by GET": {"GET", "?query={hello}&extensions=hunter2", "", nil, 400, `extensions must be a JSON object`},
		"JSON nested too deep":      {"POST", "", `{"query":` + strings.Repeat("[", 1900), sent(jsonType), 400, `the request is not valid JSON`},
		"too many fields":           {"POST", "", requestBody("{" + strings.Repeat("a ", 950) + "}"), sent(jsonType), 200, `fields in one selection exceeds 100`},

		"panic": {"POST", "", requestBody("{ panic }"), sent(jsonType), 500, `{"errors":[{"message":"internal error","extensions":{"code":"INTERNAL"}}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := server.do(t, tt.method, tt.query, tt.body, tt.headers...)
			if got.status != tt.status || !strings.Contains(got.body, tt.want) {
				t.Errorf("got %d %s\nwant %d with %s", got.status, got.body, tt.status, tt.want)
			}
			if strings.Contains(got.body, "hunter2") {
				t.Errorf("the response repeats the request: %s", got.body)
			}
			if got.status == http.StatusMethodNotAllowed && got.header.Get("Allow") == "" {
				t.Error("405 without an Allow header")
			}
			if got.header.Get("Content-Type") == "" || got.header.Get("X-Content-Type-Options") != "nosniff" || got.header.Get("Vary") != "Accept" || got.header.Get("Cache-Control") != "no-store" {
				t.Errorf("headers: %v", got.header)
			}
		})
	}
}

// TestPersistedQuery checks the errors for an unknown hash and for a wrong one.
func TestPersistedQuery(t *testing.T) {
	t.Parallel()
	server := startServer(t, nil)
	const hash = `"extensions":{"persistedQuery":{"version":1,"sha256Hash":"7ba446f1d5d4cdd97cdf4d4ea4b0e5eb4ae3a9d1dfda8bd3b4fa4e1ca4c3a9a9"}}`
	if got := server.do(t, "POST", "", "{"+hash+"}", "Content-Type", jsonType); !strings.Contains(got.body, "PersistedQueryNotFound") {
		t.Errorf("unknown hash: got %s", got.body)
	}
	if got := server.do(t, "POST", "", `{"query":"{ hello }",`+hash+"}", "Content-Type", jsonType); !strings.Contains(got.body, "hash does not match") {
		t.Errorf("wrong hash: got %s", got.body)
	}
}

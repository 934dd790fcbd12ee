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

// TestHTTP holds the rules of GraphQL over HTTP: what a request is answered
// with, by its status and what is in its body.
func TestHTTP(t *testing.T) {
	t.Parallel()
	d := startServer(t, func(o *transport.Options) { o.MaxBody = 2000 })
	type headers []string
	sending := func(contentType string) headers { return headers{"Content-Type", contentType} }
	accepting := func(accept string) headers { return headers{"Content-Type", jsonType, "Accept", accept} }
	good := requestBody("{ hello }")
	const greeting = `{"data":{"hello":"world"}}`
	for name, row := range map[string]struct {
		method, query, body string
		headers             headers
		status              int
		has                 string
	}{
		"a query":                      {"POST", "", good, sending(jsonType), 200, greeting},
		"a query by GET":               {"GET", "?query={hello}", "", nil, 200, greeting},
		"variables by GET":             {"GET", "?query=query($t:String){echo(text:$t)}&variables=" + url.QueryEscape(`{"t":"x"}`), "", nil, 200, `{"data":{"echo":"x"}}`},
		"a mutation":                   {"POST", "", requestBody("mutation { change }"), sending(jsonType), 200, `{"data":{"change":"world"}}`},
		"a charset":                    {"POST", "", good, sending(jsonType + "; charset=UTF-8"), 200, greeting},
		"a long number stays as it is": {"POST", "", `{"query":"query($t:String){echo(text:$t)}","variables":{"t":"x"},"extensions":{"n":12345678901234567890}}`, sending(jsonType), 200, `{"data":{"echo":"x"}}`},

		"invalid, as JSON":       {"POST", "", requestBody("{ nothing }"), accepting(jsonType), 200, `{"errors":[{"message":"Cannot query field`},
		"invalid, as GraphQL":    {"POST", "", requestBody("{ nothing }"), accepting(graphqlType), 400, `{"errors":[{"message":"Cannot query field`},
		"no GraphQL, as JSON":    {"POST", "", requestBody("{"), accepting(jsonType), 200, `GRAPHQL_PARSE_FAILED`},
		"no GraphQL, as GraphQL": {"POST", "", requestBody("{"), accepting(graphqlType), 400, `GRAPHQL_PARSE_FAILED`},

		"nothing is said of the answer": {"POST", "", good, accepting(""), 200, greeting},
		"anything will do":              {"POST", "", good, accepting("text/html, */*;q=0.1"), 200, greeting},
		"only what is not served":       {"POST", "", good, accepting("text/html"), 406, `"code":"INVALID_INPUT"`},
		"what is served is refused":     {"POST", "", good, accepting("application/json;q=0"), 406, `"code":"INVALID_INPUT"`},
		"another charset":               {"POST", "", good, accepting("application/json;charset=latin1"), 406, `"code":"INVALID_INPUT"`},

		"a form":               {"POST", "", "query={hello}", sending("application/x-www-form-urlencoded"), 415, `"code":"UNSUPPORTED_MEDIA_TYPE"`},
		"a form with files":    {"POST", "", good, sending("multipart/form-data; boundary=x"), 415, `"code":"UNSUPPORTED_MEDIA_TYPE"`},
		"plain text":           {"POST", "", good, sending("text/plain"), 415, `"code":"UNSUPPORTED_MEDIA_TYPE"`},
		"bare GraphQL":         {"POST", "", "{ hello }", sending("application/graphql"), 415, `"code":"UNSUPPORTED_MEDIA_TYPE"`},
		"no content type":      {"POST", "", good, nil, 415, `"code":"UNSUPPORTED_MEDIA_TYPE"`},
		"JSON in latin1":       {"POST", "", good, sending(jsonType + ";charset=latin1"), 415, `"code":"UNSUPPORTED_MEDIA_TYPE"`},
		"PUT":                  {"PUT", "", good, sending(jsonType), 405, `"code":"METHOD_NOT_ALLOWED"`},
		"a mutation by GET":    {"GET", "?query=mutation{change}", "", nil, 405, `"code":"METHOD_NOT_ALLOWED"`},
		"a subscription":       {"POST", "", requestBody("subscription { silence }"), sending(jsonType), 400, `subscribe over a WebSocket`},
		"a body past its size": {"POST", "", requestBody(strings.Repeat(" ", 2000)), sending(jsonType), 413, `"code":"PAYLOAD_TOO_LARGE"`},

		"broken JSON":            {"POST", "", `{"query":"{ hello }","secret":"hunter2`, sending(jsonType), 400, `the request is not valid JSON`},
		"two values":             {"POST", "", good + good, sending(jsonType), 400, `the request is not valid JSON`},
		"a batch":                {"POST", "", "[" + good + "]", sending(jsonType), 400, `batches are not served`},
		"a string":               {"POST", "", `"hunter2"`, sending(jsonType), 400, `must be a JSON object`},
		"nothing":                {"POST", "", "", sending(jsonType), 400, `must be a JSON object`},
		"bytes that are no text": {"POST", "", "{\"query\":\"{ hello } # \xff\"}", sending(jsonType), 400, `must be valid UTF-8`},
		"the same by GET":        {"GET", "?query={hello}&variables=%7B%22a%22:%22%FF%22%7D", "", nil, 400, `variables must be valid UTF-8`},
		"no query":               {"POST", "", `{"variables":{}}`, sending(jsonType), 400, `the request has no query`},
		"no query by GET":        {"GET", "", "", nil, 400, `the request has no query`},
		"a query of null":        {"POST", "", `{"query":null}`, sending(jsonType), 400, `the request has no query`},
		"a query that is none":   {"POST", "", `{"query":{"hunter2":1}}`, sending(jsonType), 400, `query has the wrong type`},
		"variables in an array":  {"POST", "", `{"query":"{ hello }","variables":["hunter2"]}`, sending(jsonType), 400, `variables has the wrong type`},
		"the same by GET again":  {"GET", "?query={hello}&variables=[]", "", nil, 400, `variables must be a JSON object`},
		"extensions of text":     {"GET", "?query={hello}&extensions=hunter2", "", nil, 400, `extensions must be a JSON object`},
		"JSON too deep":          {"POST", "", `{"query":` + strings.Repeat("[", 1900), sending(jsonType), 400, `the request is not valid JSON`},
		"a document past tokens": {"POST", "", requestBody("{" + strings.Repeat("a ", 950) + "}"), sending(jsonType), 200, `fields in one selection is over 100`},

		"a panic": {"POST", "", requestBody("{ panic }"), sending(jsonType), 500, `{"errors":[{"message":"internal error","extensions":{"code":"INTERNAL"}}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := d.do(t, row.method, row.query, row.body, row.headers...)
			if got.status != row.status || !strings.Contains(got.body, row.has) {
				t.Errorf("answered %d %s\nwant %d with %s", got.status, got.body, row.status, row.has)
			}
			if strings.Contains(got.body, "hunter2") {
				t.Errorf("the answer repeats what it was sent: %s", got.body)
			}
			if got.status == http.StatusMethodNotAllowed && got.header.Get("Allow") == "" {
				t.Error("405 does not say what is allowed")
			}
			if got.header.Get("Content-Type") == "" || got.header.Get("X-Content-Type-Options") != "nosniff" || got.header.Get("Vary") != "Accept" || got.header.Get("Cache-Control") != "no-store" {
				t.Errorf("headers: %v", got.header)
			}
		})
	}
}

func TestHTTP_negotiatesMediaType(t *testing.T) {
	t.Parallel()
	d := startServer(t, nil)
	for accept, want := range map[string]string{
		graphqlType:                       graphqlType,
		jsonType + ", " + graphqlType:     jsonType,
		jsonType + ";q=.5," + graphqlType: graphqlType,
		graphqlType + ";q=0, */*":         jsonType,
		graphqlType + ";q=nonsense,*/*":   jsonType,
		"application/*":                   jsonType,
	} {
		if got := d.post(t, "{ hello }", "Accept", accept).header.Get("Content-Type"); got != want+"; charset=utf-8" {
			t.Errorf("Accept: %s is answered with %s, want %s", accept, got, want)
		}
	}
}

// TestPersistedQuery: the hash alone is asked for first, then sent with the
// document, then enough.
func TestPersistedQuery(t *testing.T) {
	t.Parallel()
	d := startServer(t, nil)
	const hash = `"extensions":{"persistedQuery":{"version":1,"sha256Hash":"7ba446f1d5d4cdd97cdf4d4ea4b0e5eb4ae3a9d1dfda8bd3b4fa4e1ca4c3a9a9"}}`
	if got := d.do(t, "POST", "", "{"+hash+"}", "Content-Type", jsonType); !strings.Contains(got.body, "PersistedQueryNotFound") {
		t.Errorf("an unknown hash was answered %s", got.body)
	}
	if got := d.do(t, "POST", "", `{"query":"{ hello }",`+hash+"}", "Content-Type", jsonType); !strings.Contains(got.body, "hash does not match") {
		t.Errorf("a wrong hash was answered %s", got.body)
	}
}

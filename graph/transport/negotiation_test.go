package transport_test

import (
	"net/http"
	"strings"
	"testing"

	"agentmarket.space/server/graph/transport"
)

// TestNegotiation checks the media type of each kind of operation for the Accept headers
// of known clients and for edge cases. "" is an error.
func TestNegotiation(t *testing.T) {
	t.Parallel()
	server := startServer(t, nil)
	const (
		json, graphql, stream = jsonType, graphqlType, eventStreamType
		browser               = "text/html,application/xhtml+xml,application/xml;q=0.9,"
	)
	for name, row := range map[string]struct{ accept, query, subscription string }{
		"Apollo Client 3":                   {"*/*", json, stream},
		"Apollo Client 3.12":                {"application/graphql-response+json, application/json, */*", graphql, stream},
		"Apollo Client 3, @defer":           {"multipart/mixed;deferSpec=20220824,application/json", json, ""},
		"Apollo Client 3, subscription":     {`multipart/mixed;boundary="graphql";subscriptionSpec=1.0,application/json`, json, ""},
		"Apollo Client 4":                   {"application/graphql-response+json,application/json;q=0.9", graphql, ""},
		"Apollo Client 4, @defer":           {"multipart/mixed;incrementalSpec=v0.2,application/graphql-response+json,application/json;q=0.9", graphql, ""},
		"Apollo Client 4, subscription":     {"multipart/mixed;boundary=graphql;subscriptionSpec=1.0,application/graphql-response+json,application/json;q=0.9", graphql, ""},
		"urql 2":                            {"application/json", json, ""},
		"urql 3":                            {"application/graphql+json, application/json", json, ""},
		"urql 4, 5 and 6":                   {"application/graphql-response+json, application/graphql+json, application/json, text/event-stream, multipart/mixed", graphql, stream},
		"Relay, fetch":                      {"application/json", json, ""},
		"Relay, GraphQL over HTTP":          {"application/graphql-response+json; charset=utf-8, application/json; charset=utf-8", graphql, ""},
		"graphql-request":                   {"application/graphql-response+json, application/json", graphql, ""},
		"graphql-sse, distinct connections": {"text/event-stream", stream, stream},
		"EventSource":                       {"text/event-stream", stream, stream},
		"GraphiQL":                          {"application/json, multipart/mixed", json, ""},
		"curl and fetch":                    {"*/*", json, stream},
		"axios":                             {"application/json, text/plain, */*", json, stream},
		"Python requests":                   {"*/*", json, stream},
		"Java":                              {"text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", json, stream},
		"Chrome":                            {browser + "image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7", json, stream},
		"Firefox":                           {browser + "*/*;q=0.8", json, stream},
		"Safari":                            {browser + "*/*;q=0.8", json, stream},
		"specification, legacy client":      {"application/json; charset=utf-8", json, ""},
		"specification, recommended":        {"application/graphql-response+json; charset=utf-8, application/json; charset=utf-8", graphql, ""},
		"specification, both":               {"application/graphql-response+json, application/json;q=0.9", graphql, ""},
		"specification, only the new type":  {"application/graphql-response+json", graphql, ""},
		"no header":                         {"", json, ""},
		"stream first":                      {"text/event-stream, application/json", stream, stream},
		"stream last":                       {"application/json, text/event-stream", json, stream},
		"stream liked less":                 {"text/event-stream;q=0.1, application/json", json, stream},
		"stream liked more":                 {"application/json;q=0.1, text/event-stream", stream, stream},
		"stream refused":                    {"text/event-stream;q=0, */*", json, ""},
		"stream refused after a wildcard":   {"*/*, text/event-stream; q=0.0", json, ""},
		"JSON refused":                      {"application/json;q=0, application/graphql-response+json;q=0, */*", stream, stream},
		"stream and anything":               {"text/event-stream, */*;q=0.1", stream, stream},
		"wildcard subtype of streams":       {"text/*", stream, stream},
		"another charset":                   {"application/json;charset=latin1, text/event-stream;charset=utf-8", stream, stream},
		"the word in another type":          {"application/json, text/event-stream-like, x-text/event-stream", json, ""},
		"the word in a parameter":           {`application/json;note="text/event-stream, */*"`, json, ""},
		"capitals":                          {"Text/Event-Stream", stream, stream},
		"weight that is not a number":       {"application/graphql-response+json;q=nonsense,*/*", json, stream},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for document, want := range map[string]string{"{ hello }": row.query, "mutation { change }": row.query, "subscription { numbers(count: 1) }": row.subscription} {
				var headers []string
				if row.accept != "" {
					headers = []string{"Accept", row.accept}
				}
				got := server.post(t, document, headers...)
				media, _, _ := strings.Cut(got.header.Get("Content-Type"), ";")
				if want == "" {
					if got.status != http.StatusBadRequest || media == stream || !strings.Contains(got.body, `"code":"INVALID_INPUT"`) {
						t.Errorf("%s: got %d %s %s, want an error", document, got.status, media, got.body)
					}
					continue
				}
				if got.status != http.StatusOK || media != want || !strings.Contains(got.body, `{"data":{`) {
					t.Errorf("%s: got %d %s %s, want %s", document, got.status, media, got.body, want)
				}
			}
		})
	}
	for name, accept := range map[string]string{
		"another type": "text/html", "everything refused": "*/*;q=0", "JSON refused": "application/json;q=0", "another charset": "application/json;charset=latin1", "nonsense": "nonsense",
	} {
		if got := server.post(t, "mutation { change }", "Accept", accept); got.status != http.StatusNotAcceptable || !strings.Contains(got.body, `"code":"INVALID_INPUT"`) {
			t.Errorf("%s: got %d %s", name, got.status, got.body)
		}
	}
}

// TestNegotiation_connections checks that only an event stream counts as a connection.
func TestNegotiation_connections(t *testing.T) {
	t.Parallel()
	server := startServer(t, func(o *transport.Options) { o.MaxPerKey = 1 })
	server.openSilentStream(t.Context(), t, "k").expectHeartbeats(1)
	const urql = "application/graphql-response+json, application/json, text/event-stream"
	if got := server.post(t, "{ hello }", "Accept", urql, "X-API-Key", "k"); got.status != http.StatusOK || got.body != `{"data":{"hello":"world"}}` {
		t.Errorf("query: got %d %s", got.status, got.body)
	}
	if got := server.post(t, "{ hello }", "Accept", eventStreamType, "X-API-Key", "k"); got.status != http.StatusServiceUnavailable {
		t.Errorf("event stream over the limit: got %d %s", got.status, got.body)
	}
}

// TestNegotiation_invalidDocument checks the status of a document that is not executed: it
// depends on the media type, and is 400 for a client that prefers an event stream.
func TestNegotiation_invalidDocument(t *testing.T) {
	t.Parallel()
	server := startServer(t, nil)
	for accept, want := range map[string]int{
		jsonType: 200, graphqlType: 400, eventStreamType: 400, eventStreamType + ", " + jsonType: 400, jsonType + ", " + eventStreamType: 200,
	} {
		got := server.post(t, "{ nothing }", "Accept", accept)
		if got.status != want || strings.HasPrefix(got.header.Get("Content-Type"), eventStreamType) || !strings.HasPrefix(got.body, `{"errors":[`) {
			t.Errorf("Accept: %s: got %d %s", accept, got.status, got.body)
		}
	}
}

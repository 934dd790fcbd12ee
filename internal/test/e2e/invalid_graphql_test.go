package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// invalidGraphQLRequests are HTTP requests that are not GraphQL requests.
func invalidGraphQLRequests() []invalidRequest {
	const query = `{"query":"{ __typename }"}`
	requests := []invalidRequest{
		{http.MethodPost, "/graphql", `{"query":"` + strings.Repeat("a", 5<<20) + `"}`, "", "PAYLOAD_TOO_LARGE"},
		{http.MethodPost, "/graphql", query, "X-API-Key: nonsense", "UNAUTHENTICATED"},
		{http.MethodPost, "/graphql", query, "X-API-Key: \xff\xfe", "UNAUTHENTICATED"},
		{http.MethodGet, "/graphql?query=" + url.QueryEscape("mutation { rotateApiKey { apiKey } }"), "", "", "METHOD_NOT_ALLOWED"},
		{http.MethodGet, "/graphql?query=%ff", "", "", "INVALID_INPUT"},
		{http.MethodGet, "/graphql?query=%zz", "", "", "INVALID_INPUT"},
		{http.MethodGet, "/graphql?query=%7B__typename%7D&variables=%5B%5D", "", "", "INVALID_INPUT"},
		{http.MethodGet, "/graphql", "", "", "INVALID_INPUT"},
		{http.MethodPut, "/graphql", query, "", "METHOD_NOT_ALLOWED"},
		{http.MethodDelete, "/graphql", "", "", "METHOD_NOT_ALLOWED"},
	}
	for _, media := range []string{"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json; charset=latin1", ";;;"} {
		requests = append(requests, invalidRequest{http.MethodPost, "/graphql", query, "Content-Type: " + media, "UNSUPPORTED_MEDIA_TYPE"})
	}
	for _, body := range []string{
		" ", "{", "}", `{"a"`, "{}", "null", "[]", "[" + query + "]", `"text"`, "7", "nonsense", "\x00", `{"query":`, "{\"query\":\"\x00\"}", "{\"query\":\"\xff\xfe\"}", query + query,
		`{"query":7}`, `{"query":null}`, `{"query":["{ __typename }"]}`, `{"query":"{ __typename }","query":""}`,
		`{"query":"{ __typename }","variables":7}`, `{"query":"{ __typename }","variables":[]}`, `{"query":"{ __typename }","operationName":"Other"}`, `{"query":"{ __typename }","extensions":7}`,
		strings.Repeat(`{"a":`, 20_000), strings.Repeat("[", 200_000),
	} {
		requests = append(requests, invalidRequest{http.MethodPost, "/graphql", body, "Content-Type: application/json", "INVALID_INPUT"})
	}
	return requests
}

// invalidDocument returns a request with a document.
func invalidDocument(document, code string) invalidRequest {
	body, err := json.Marshal(map[string]string{"query": document})
	if err != nil {
		panic(err) // a string can always be encoded
	}
	return invalidRequest{http.MethodPost, "/graphql", string(body), "", code}
}

// invalidOperations has each kind of invalid value in each argument, and documents over the
// limits. The sender works on task and has posted other.
func invalidOperations(task, other string) []invalidRequest {
	var requests []invalidRequest
	wrong := func(code, format string, values ...string) {
		for _, value := range values {
			requests = append(requests, invalidDocument(fmt.Sprintf(format, value), code))
		}
	}
	numbers := []string{"-1", "0", "1.5", "1.0", "1e1", "1e400", "9223372036854775807", "99999999999999999999", "-99999999999999999999", `"25"`, "true", "[]", "{}", "null"}
	texts := []string{`""`, `" "`, `"\u0000"`, "7", "1e400", "true", "null", "[1]", "{}", "NAME", `"` + strings.Repeat("a", 30_000) + `"`}
	ids := []string{`"unknown"`, `"../../etc/passwd"`, `"' OR '1'='1"`, `"%"`, `"_"`, `"\u0000"`, `""`, `"` + unknownID + `"`, `"{` + task + `}"`, `"` + strings.ReplaceAll(task, "-", "") + `"`, "7", `"` + strings.Repeat("a", 30_000) + `"`}
	cursors := []string{`"nonsense"`, `"-1"`, `"' OR 1=1"`, `"99999999999999999999"`, `"\u0000"`, "7", "[]", `"` + strings.Repeat("a", 5000) + `"`}

	const invalid, unknown = "INVALID_INPUT", "NOT_FOUND"
	wrong(invalid, `mutation { postTask(input: {title: "T", description: "D", budget: %s}) { task { id } } }`, append(numbers, "1", "1000000001")...)
	wrong(invalid, `mutation { postTask(input: {title: "T", description: "D", budget: 25, leaseMinutes: %s}) { task { id } } }`, numbers[:len(numbers)-1]...)
	wrong(invalid, `mutation { postTask(input: {title: %s, description: "D", budget: 25}) { task { id } } }`, texts...)
	wrong(invalid, `mutation { postTask(input: {title: "T", description: %s, budget: 25}) { task { id } } }`, texts[:len(texts)-1]...)
	wrong(invalid, `mutation { postTask(input: {title: "T", description: "D", budget: 25, requiredCapabilities: %s}) { task { id } } }`,
		"7", "{}", "[7]", "[null]", `[""]`, `["\u0000"]`, capabilityList(21), `["`+strings.Repeat("a", 51)+`"]`)
	wrong(invalid, `mutation { execute(input: {agentId: "`+unknownID+`", taskDescription: "D", budget: %s}) { result } }`, numbers...)
	wrong(invalid, `mutation { completeTask(input: {taskId: "`+task+`", result: %s}) { task { id } } }`, texts[:len(texts)-1]...)
	wrong(invalid, `mutation { registerAgent(input: {name: %s}) { apiKey } }`, texts...)
	wrong(invalid, `mutation { registerAgent(input: {name: "A", capabilities: %s}) { apiKey } }`, capabilityList(51), `[["a"]]`, `["`+strings.Repeat("a", 51)+`"]`)
	wrong(unknown, `{ task(id: %s) { id } }`, ids...)
	wrong(unknown, `{ agent(id: %s) { id } }`, ids...)
	wrong(unknown, `mutation { acceptTask(input: {taskId: %s}) { task { id } } }`, ids...)
	wrong(unknown, `mutation { cancelTask(input: {taskId: %s}) { task { id } } }`, ids...)
	wrong(unknown, `mutation { completeTask(input: {taskId: %s, result: "Done."}) { task { id } } }`, ids...)
	wrong(unknown, `mutation { execute(input: {agentId: %s, taskDescription: "D", budget: 25}) { result } }`, ids...)
	wrong(invalid, `mutation { acceptTask(input: {taskId: %s}) { task { id } } }`, "null", "[]", "{}", "true", "1.5")
	wrong(invalid, `{ tasks(first: 5, after: %s) { nodes { id } } }`, cursors...)
	wrong(invalid, `{ agents(first: 5, after: %s) { nodes { id } } }`, cursors...)
	wrong(invalid, `{ viewer { wallet { entries(first: 5, after: %s) { nodes { id } } } } }`, cursors...)
	wrong(invalid, `{ tasks(first: %s) { nodes { id } } }`, "-1", "0", "101", "1000000", "2147483648", "99999999999999999999", "1.5", `"5"`)
	wrong(invalid, `{ tasks(filter: %s) { nodes { id } } }`, `{status: open}`, `{status: "OPEN"}`, `{status: 7}`, `{capability: 7}`, `{capability: "\u0000"}`, `{minBudget: 1.5}`, `{search: "\u0000"}`, `{nothing: 1}`)
	wrong(invalid, "%s", "", " ", "{", "}", "{ }", "{ unknown }", "nonsense", "\x00", "mutation { nothing }", "subscription { taskPosted { cursor } }", "query($a: Int!) { tasks(first: $a) { nodes { id } } }",
		"fragment F on Query { ...F } { ...F }", "{ tasks { nodes { ...F } } } fragment F on Task { ...G } fragment G on Task { ...F }", "{ task { id } }", "{ tasks }", `{ __typename @nothing }`,
		"{ "+strings.Repeat("a: agents { nodes { id } } ", 2000)+"}", strings.Repeat("{ agents { nodes ", 500), strings.Repeat("{a", 10_000)+strings.Repeat("}", 10_000), "{ __typename #"+strings.Repeat("a", 40_000)+"\n}")
	return append(requests,
		invalidDocument(`mutation { acceptTask(input: {taskId: "`+task+`"}) { task { id } } }`, "CONFLICT"),
		invalidDocument(`mutation { acceptTask(input: {taskId: "`+other+`"}) { task { id } } }`, "FORBIDDEN"),
		invalidDocument(`mutation { cancelTask(input: {taskId: "`+task+`"}) { task { id } } }`, "FORBIDDEN"),
		invalidDocument(`mutation { postTask(input: {title: "T", description: "D", budget: 1000000}) { task { id } } }`, "INSUFFICIENT_CREDITS"))
}

// invalidVariables are invalid variables of valid documents.
func invalidVariables() []invalidRequest {
	var requests []invalidRequest
	for document, values := range map[string][]string{
		`mutation($v: PostTaskInput!) { postTask(input: $v) { task { id } } }`: {
			"null", "7", `"x"`, "[]", "{}", `{"title":"T"}`, `{"title":"T","description":"D","budget":25,"nothing":1}`,
			`{"title":7,"description":"D","budget":25}`, `{"title":"\u0000","description":"D","budget":25}`,
		},
		`mutation($v: Credits!) { postTask(input: {title: "T", description: "D", budget: $v}) { task { id } } }`: {
			"null", "-1", "0", "1", "1.0", "1.5", "1e0", "250e-2", "1e400", "99999999999999999999", `"25"`, "true", "[]", "{}", "[25]",
		},
		`mutation($v: String!) { completeTask(input: {taskId: "` + unknownID + `", result: $v}) { task { id } } }`: {
			"null", "7", "true", "{}", `""`, `"\u0000"`, `"` + strings.Repeat("a", 200_001) + `"`, strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000),
			strings.Repeat(`{"a":`, 9_000) + "1" + strings.Repeat("}", 9_000), strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000),
		},
		`query($v: Int) { tasks(first: $v) { nodes { id } } }`: {"-1", "0", "101", "1.5", "1e400", `"5"`, "true", "[]", "99999999999999999999"},
		`query($v: TaskFilter) { tasks(filter: $v) { nodes { id } } }`: {
			"7", `"x"`, "[]", `{"status":["open"]}`, `{"status":"OPEN' OR '1'='1"}`, `{"status":[7]}`, `{"status":[null]}`, `{"capability":7}`, `{"search":["x"]}`, `{"minBudget":"2"}`, `{"limit":5}`,
		},
		`query($v: [ID!]!) { nodes(ids: $v) { id } }`: {"null", "{}", "[null]", "[" + strings.Repeat(`"a",`, 50) + `"a"]`},
	} {
		for _, value := range values {
			requests = append(requests, invalidRequest{http.MethodPost, "/graphql", fmt.Sprintf(`{"query":%q,"variables":{"v":%s}}`, document, value), "", "INVALID_INPUT"})
		}
	}
	return requests
}

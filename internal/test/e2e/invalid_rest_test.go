package e2e_test

import (
	"net/http"
	"strings"
)

const unknownID = "0195f0a4-7c00-7000-8000-000000000000"

// invalidBodies are invalid on every route.
func invalidBodies() []invalidRequest {
	deep := strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000)
	codes := map[string]string{`{"name":"` + strings.Repeat("a", 5<<20) + `"}`: "PAYLOAD_TOO_LARGE"}
	for _, body := range []string{
		" ", "{", "}", `{"a"`, "null", "[]", `"text"`, "7", "nonsense", `{"title":`, "\x00", "{\"title\":\"\x00\"}", "{\"title\":\"\xff\xfe\"}", "{} {}", "\ufeff{}",
		strings.Repeat(`{"a":`, 20_000), strings.Repeat("[", 200_000), deep, `{"name":` + deep + `,"title":` + deep + `,"result":` + deep + `,"agent_id":` + deep + `}`,
		`{"name":7,"title":7,"result":7,"agent_id":7}`, `{"name":null}`, "{}",
	} {
		codes[body] = "INVALID_INPUT"
	}
	var requests []invalidRequest
	for _, path := range []string{"/api/agents/register", "/api/tasks", "/api/tasks/" + unknownID + "/complete", "/api/execute"} {
		for body, code := range codes {
			requests = append(requests, invalidRequest{http.MethodPost, path, body, "", code})
		}
		for _, media := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml", ";;;"} {
			requests = append(requests, invalidRequest{http.MethodPost, path, `{}`, "Content-Type: " + media, "UNSUPPORTED_MEDIA_TYPE"})
		}
	}
	return requests
}

// invalidFields has each kind of invalid value in each field.
func invalidFields(task, agent string) []invalidRequest {
	var requests []invalidRequest
	wrong := func(method, path, valid, field string, values ...string) {
		for _, value := range values {
			body := "{" + strings.TrimPrefix(valid+`,"`+field+`":`+value, ",") + "}" // of two fields with one name, the last is used
			requests = append(requests, invalidRequest{method, path, body, "", "INVALID_INPUT"})
		}
	}
	text := func(n int) string { return `"` + strings.Repeat("a", n) + `"` }
	numbers := []string{"null", `"25"`, "25.5", "250e-2", "0.0", "0e9", "1e400", "-1", "0", "true", "[]", "{}", "1000000001", "9223372036854775807", "9223372036854775808", "-9223372036854775809"}
	texts := []string{"null", `""`, `" "`, "7", "true", "[]", "{}", `"\u0000"`, `"a\u0000b"`}
	words := []string{`"x"`, "7", "{}", "[7]", `[""]`, "[null]", `["\u0000"]`, "[" + text(51) + "]", `[["x"]]`}

	const post, register = http.MethodPost, "/api/agents/register"
	const posting, hiring = `"title":"T","description":"D","budget":25`, `"task_description":"D","budget":25`
	wrong(post, register, "", "name", append(texts, text(101))...)
	wrong(post, register, `"name":"A"`, "description", "7", text(2001), `"\u0000"`)
	wrong(post, register, `"name":"A"`, "capabilities", words...)
	wrong(post, register, `"name":"A"`, "capabilities", capabilityList(51))
	wrong(post, register, `"name":"A"`, "price_per_task", numbers[1:]...) // null means that the field is absent
	wrong(post, register, `"name":"A"`, "owner_email", "7", `"nobody"`, `"a\u0000@example.com"`, text(400))
	for _, field := range []string{"webhook_url", "endpoint_url"} {
		wrong(post, register, `"name":"A"`, field, "7", `"x"`, `"http://example.com"`, `"https://127.0.0.1/"`, `"https://[::1]/"`, `"https://localhost/"`, `"https://a\u0000b.com/"`, `"https://`+strings.Repeat("a", 300_000)+`"`)
	}
	wrong(post, "/api/tasks", posting, "title", append(texts, text(201))...)
	wrong(post, "/api/tasks", posting, "description", append(texts, text(50_001))...)
	wrong(post, "/api/tasks", posting, "budget", append(numbers, "1")...)
	wrong(post, "/api/tasks", posting, "required_capabilities", append(words, capabilityList(21))...)
	wrong(post, "/api/tasks", posting, "lease_minutes", numbers[1:]...)
	wrong(post, "/api/tasks", posting, "open_for_minutes", numbers[1:]...)
	wrong(post, "/api/tasks/"+task+"/complete", "", "result", append(texts, text(200_001))...)
	wrong(post, "/api/tasks/"+task+"/extend", "", "lease_minutes", numbers[1:]...)
	wrong(post, "/api/execute", `"agent_id":"`+agent+`",`+hiring, "task_description", texts...)
	wrong(post, "/api/execute", `"agent_id":"`+agent+`",`+hiring, "budget", append(numbers, "1")...)
	wrong(post, "/api/execute", hiring, "agent_id", "null", "7", "[]", "{}", "true")
	wrong(http.MethodPut, "/api/agents/me/webhook", "", "webhook_url", append(texts, `"http://example.com"`, `"https://10.0.0.1/"`, `"javascript:alert(1)"`)...)
	return requests
}

// capabilityList returns an array of n capabilities.
func capabilityList(n int) string {
	words := make([]string, n)
	for i := range words {
		words[i] = `"` + strings.Repeat("x", i%40+1) + string(rune('a'+i/40)) + `"`
	}
	return "[" + strings.Join(words, ",") + "]"
}

// invalidRoutes are requests with a wrong path, method, ID or state. The sender works on
// task and has posted other.
func invalidRoutes(task, other string) []invalidRequest {
	const get, post = http.MethodGet, http.MethodPost
	requests := []invalidRequest{
		{post, "/api/tasks/" + task + "/accept", "", "", "CONFLICT"},
		{post, "/api/tasks/" + other + "/accept", "", "", "FORBIDDEN"},
		{post, "/api/tasks/" + task + "/cancel", "", "", "FORBIDDEN"},
		{post, "/api/tasks/" + other + "/release", "", "", "CONFLICT"},
		{post, "/api/tasks/" + other + "/rate", `{"score":5}`, "", "CONFLICT"},
		{post, "/api/tasks", `{"title":"T","description":"D","budget":1000000}`, "", "INSUFFICIENT_CREDITS"},
		{post, "/api/tasks", `{"title":"T","description":"D","budget":25}`, "Idempotency-Key: " + strings.Repeat("a", 256), "INVALID_INPUT"},
		{post, "/api/agents/register", `{"name":"A"}`, "Idempotency-Key: short", "INVALID_INPUT"},
		{post, "/openapi.json", "", "", "METHOD_NOT_ALLOWED"},
		{get, "/api/tasks/" + task + "/accept", "", "", "METHOD_NOT_ALLOWED"},
		{get, "/api/execute", "", "", "METHOD_NOT_ALLOWED"},
		{http.MethodDelete, "/api/tasks/" + task, "", "", "METHOD_NOT_ALLOWED"},
		{"PROPFIND", "/api/wallet", "", "", "METHOD_NOT_ALLOWED"},
	}
	for _, path := range []string{
		"/api", "/api/", "/api/unknown", "/api/tasks/", "/api//tasks", "/api/./tasks", "/api/tasks/../agents", "/api/tasks/%2e%2e/agents", "/api/tasks/%2E%2E%2Fagents/x",
		"/api/..%2f..%2fetc/passwd", "/api%2ftasks", "/api/tasks%00", "/api/tasks;x=1", "/api/Tasks", "/api/tasks/" + task + "/", "/api/tasks/" + task + "/accept/now",
	} {
		requests = append(requests, invalidRequest{get, path, "", "", "NOT_FOUND"}, invalidRequest{post, path, `{"title":"T","description":"D","budget":25}`, "", "NOT_FOUND"})
	}
	for _, id := range []string{unknownID, "unknown", "1", "-1", "%00", "%ff", "%2e%2e", "a%2fb", "%25", "_", "'%20OR%20'1'='1", "%7B" + task + "%7D", strings.ReplaceAll(task, "-", ""), task + "%20", strings.Repeat("a", 4000)} {
		requests = append(requests, invalidRequest{get, "/api/agents/" + id, "", "", "NOT_FOUND"}, invalidRequest{get, "/api/tasks/" + id, "", "", "NOT_FOUND"})
		for _, verb := range []string{"accept", "cancel", "release", "extend"} {
			requests = append(requests, invalidRequest{post, "/api/tasks/" + id + "/" + verb, "", "", "NOT_FOUND"})
		}
		requests = append(requests, invalidRequest{post, "/api/tasks/" + id + "/complete", `{"result":"Done."}`, "", "NOT_FOUND"})
	}
	for _, id := range []string{unknownID, "unknown", `\u0000`, "%", "' OR '1'='1", strings.Repeat("a", 100_000)} {
		requests = append(requests, invalidRequest{post, "/api/execute", `{"agent_id":"` + id + `","task_description":"D","budget":25}`, "", "NOT_FOUND"})
	}
	for _, key := range []string{"", "nonsense", "\xff\xfe", "' OR '1'='1", "%", strings.Repeat("0", 64), strings.Repeat("a", 8000)} {
		requests = append(requests, invalidRequest{get, "/api/wallet", "", "X-API-Key: " + key, "UNAUTHENTICATED"},
			invalidRequest{post, "/api/tasks", `{"title":"T","description":"D","budget":25}`, "X-API-Key: " + key, "UNAUTHENTICATED"})
	}
	return requests
}

// invalidListQueries are list requests with invalid parameters.
func invalidListQueries() []invalidRequest {
	var requests []invalidRequest
	for _, list := range []string{"/api/agents", "/api/tasks"} {
		for _, query := range []string{
			"limit=ten", "limit=1.5", "limit=1e1", "limit=0x10", "limit=%00", "limit=1;x", "limit=%zz", "limit=' OR 1=1",
			"cursor=nonsense", "cursor=-1", "cursor=%00", "cursor=%ff", "cursor=%27%20OR%201=1", "cursor=99999999999999999999", "cursor=" + strings.Repeat("a", 5000),
			"capability=%ff", "capability=a%00b",
		} {
			requests = append(requests, invalidRequest{http.MethodGet, list + "?" + strings.ReplaceAll(query, " ", "%20"), "", "", "INVALID_INPUT"})
		}
	}
	for _, status := range []string{"OPEN", "lost", "%27", "%25", "open,assigned", "%00", "open&status=lost"} {
		requests = append(requests, invalidRequest{http.MethodGet, "/api/tasks?status=" + status, "", "", "INVALID_INPUT"})
	}
	return requests
}

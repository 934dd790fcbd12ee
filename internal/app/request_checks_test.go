package app

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"agentmarket.space/server/internal/config"
	"agentmarket.space/server/internal/test/testutil"
	"agentmarket.space/server/models"
)

// assertAPIError checks that a response is an error with a code in the format of the API
// that serves the path: a GraphQL error or the envelope of REST.
func assertAPIError(t *testing.T, what, path string, status int, body string, code models.Code, wantStatus int) {
	t.Helper()
	want := `{"success":false,"error":"`
	if strings.HasPrefix(path, "/graphql") {
		want = `{"errors":[{"message":"`
	}
	if status != wantStatus || !strings.HasPrefix(body, want) || !strings.Contains(body, `"code":"`+string(code)+`"`) {
		t.Errorf("%s %s: got %d %s, want %d %s as %s", path, what, status, body, wantStatus, code, want)
	}
}

// TestCredentials checks on every API that the scheme of Authorization may have any case,
// and that a credential which is not a valid key is rejected rather than ignored.
func TestCredentials(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, func(c *config.Config) { c.OperatorKey = testOperatorKey })
	agentKey := b.register(t, "")
	const unknown = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for path, key := range map[string]string{
		"/api/tasks": agentKey, "/api/wallet": agentKey, "/graphql?query=%7B__typename%7D": agentKey, "/operator/audit": testOperatorKey, "/metrics": testOperatorKey,
	} {
		for _, headers := range [][]string{
			{"X-API-Key", key},
			{"x-api-key", key},
			{"Authorization", "Bearer " + key},
			{"Authorization", "bearer " + key},
			{"authorization", "BEARER  " + key},
			{"X-API-Key", key, "Authorization", "bearer " + key},
		} {
			if got := b.do(t, http.MethodGet, path, "", headers...); got.StatusCode != http.StatusOK {
				t.Errorf("%s with %s: got %d %s", path, strings.ReplaceAll(strings.Join(headers, " "), key, "KEY"), got.StatusCode, got.body)
			}
		}
		for _, headers := range [][]string{
			{"X-API-Key", unknown},
			{"X-API-Key", ""},
			{"Authorization", "Bearer " + unknown},
			{"Authorization", "bearer " + unknown},
			{"Authorization", "Bearer"},
			{"Authorization", ""},
			{"Authorization", key},
			{"Authorization", "Basic " + key},
			{"Authorization", "Token " + key},
			{"Authorization", "Bearer\t" + key},
			{"X-API-Key", key, "Authorization", "Bearer " + unknown},
			{"X-API-Key", unknown, "Authorization", "Bearer " + key},
			{"X-API-Key", key, "Authorization", "Basic eDp5"},
			{"X-API-Key", "", "Authorization", "Bearer " + key},
		} {
			got := b.do(t, http.MethodGet, path, "", headers...)
			assertAPIError(t, strings.Join(headers, " "), path, got.StatusCode, got.body, models.Unauthenticated, http.StatusUnauthorized)
			if !strings.HasPrefix(got.Header.Get("WWW-Authenticate"), "Bearer ") {
				t.Errorf("%s: got WWW-Authenticate %q", path, got.Header.Get("WWW-Authenticate"))
			}
		}
	}
	for _, path := range []string{"/api/tasks", "/graphql?query=%7B__typename%7D"} {
		if got := b.do(t, http.MethodGet, path, ""); got.StatusCode != http.StatusOK {
			t.Errorf("%s without a credential: got %d %s", path, got.StatusCode, got.body)
		}
	}
	if log := b.log.String(); strings.Contains(log, `"level":"ERROR"`) || strings.Contains(log, `"level":"WARN"`) {
		t.Errorf("logged %s", log)
	}
}

// TestContentEncoding checks that an encoded body is rejected with the name of its encoding
// on every API.
func TestContentEncoding(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, func(c *config.Config) { c.OperatorKey = testOperatorKey })
	key := b.register(t, "")
	for path, body := range map[string]string{
		"/api/tasks": `{"title":"T","description":"D","budget":2}`, "/graphql": `{"query":"{ __typename }"}`, "/operator/none": "{}",
	} {
		for coding, shown := range map[string]string{
			"gzip": "gzip", "GZIP": "GZIP", "br": "br", "zstd": "zstd", "deflate": "deflate", "identity, gzip": "gzip", "x-" + strings.Repeat("long", 50): "x-longlonglonglonglo", "aws-chunked": "aws-chunked",
		} {
			got := b.do(t, http.MethodPost, path, body, "X-API-Key", key, "Content-Encoding", coding)
			assertAPIError(t, coding, path, got.StatusCode, got.body, models.UnsupportedMedia, http.StatusUnsupportedMediaType)
			if !strings.Contains(got.body, `\"`+shown+`\"`) || got.Header.Get("Accept-Encoding") != "identity" {
				t.Errorf("%s with %s: got %s, Accept-Encoding %q", path, coding, got.body, got.Header.Get("Accept-Encoding"))
			}
		}
		for _, coding := range []string{"identity", "Identity", "", "identity, identity"} {
			if got := b.do(t, http.MethodPost, path, body, "X-API-Key", key, "Content-Encoding", coding); got.StatusCode == http.StatusUnsupportedMediaType {
				t.Errorf("%s with %q: got %d %s", path, coding, got.StatusCode, got.body)
			}
		}
	}
	if got := b.do(t, http.MethodGet, "/api/tasks", "", "Content-Encoding", "gzip"); got.StatusCode != http.StatusOK {
		t.Errorf("without a body: got %d %s", got.StatusCode, got.body)
	}
}

// TestErrors_formatOfAPI checks that a request that is rejected before it reaches its API
// gets an error in the format of that API.
func TestErrors_formatOfAPI(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, func(c *config.Config) { c.OperatorKey = testOperatorKey })
	limited := newTestServer(t, func(c *config.Config) { c.RateLimits = "on" })
	for range 1000 {
		if limited.do(t, http.MethodGet, "/api/tasks?limit=1", "").StatusCode == http.StatusTooManyRequests {
			break
		}
	}
	foreign := []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}
	handshake := []string{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="}
	for name, row := range map[string]struct {
		server             *testServer
		method, path, body string
		headers            []string
		code               models.Code
		status             int
	}{
		"cross-origin write":           {b, "POST", "/graphql", `{"query":"{ __typename }"}`, foreign, models.Forbidden, 403},
		"cross-origin write, REST":     {b, "POST", "/api/tasks", "{}", foreign, models.Forbidden, 403},
		"cross-origin write, operator": {b, "DELETE", "/operator/agents/x/keys", "", foreign, models.Forbidden, 403},
		"cross-origin handshake":       {b, "GET", "/graphql", "", append(handshake, "Origin", "https://evil.example"), models.Forbidden, 403},
		"handshake without a key":      {b, "GET", "/graphql", "", handshake[:6], models.InvalidInput, 400},
		"handshake by POST":            {b, "POST", "/graphql", "{}", handshake, models.MethodNotAllowed, 405},
		"unknown subprotocol":          {b, "GET", "/graphql", "", append(handshake, "Sec-WebSocket-Protocol", "mqtt"), models.InvalidInput, 400},
		"unknown key":                  {b, "POST", "/graphql", "{}", []string{"X-API-Key", "x"}, models.Unauthenticated, 401},
		"unknown path":                 {b, "GET", "/graphql/x", "", nil, models.NotFound, 404},
		"trailing slash":               {b, "POST", "/graphql/", "{}", nil, models.NotFound, 404},
		"unknown path, REST":           {b, "GET", "/api/nothing", "", nil, models.NotFound, 404},
		"unclean path, REST":           {b, "GET", "/api//tasks", "", nil, models.NotFound, 404},
		"unknown path, operator":       {b, "GET", "/operator/x", "", []string{"X-API-Key", testOperatorKey}, models.NotFound, 404},
		"method":                       {b, "PATCH", "/graphql", "{}", nil, models.MethodNotAllowed, 405},
		"method, OPTIONS":              {b, "OPTIONS", "/graphql", "", nil, models.MethodNotAllowed, 405},
		"method, REST":                 {b, "PATCH", "/api/tasks", "{}", nil, models.MethodNotAllowed, 405},
		"method, OpenAPI":              {b, "POST", "/openapi.json", "{}", nil, models.MethodNotAllowed, 405},
		"method, operator":             {b, "POST", "/operator/audit", "{}", []string{"X-API-Key", testOperatorKey}, models.MethodNotAllowed, 405},
		"large body":                   {b, "POST", "/graphql", strings.Repeat(" ", 2<<20), nil, models.PayloadTooLarge, 413},
		"large body, REST":             {b, "POST", "/api/agents/register", strings.Repeat(" ", 2<<20), nil, models.PayloadTooLarge, 413},
		"media type":                   {b, "POST", "/graphql", "{}", []string{"Content-Type", "text/plain"}, models.UnsupportedMedia, 415},
		"media type, REST":             {b, "POST", "/api/agents/register", "{}", []string{"Content-Type", "text/plain"}, models.UnsupportedMedia, 415},
		"rate limit":                   {limited, "POST", "/graphql", "{}", nil, models.RateLimited, 429},
		"rate limit, REST":             {limited, "GET", "/api/tasks", "", nil, models.RateLimited, 429},
	} {
		got := row.server.do(t, row.method, row.path, row.body, row.headers...)
		if row.status == http.StatusTooManyRequests && got.StatusCode != row.status {
			for got.StatusCode != row.status {
				got = row.server.do(t, row.method, row.path, row.body, row.headers...)
			}
		}
		assertAPIError(t, name, row.path, got.StatusCode, got.body, row.code, row.status)
		if got.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got Cache-Control %q", name, got.Header.Get("Cache-Control"))
		}
		if row.status == http.StatusMethodNotAllowed && got.Header.Get("Allow") == "" {
			t.Errorf("%s: no Allow header", name)
		}
		if row.status == http.StatusTooManyRequests && got.Header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After header", name)
		}
	}
	const graphqlType = "application/graphql-response+json"
	if got := b.do(t, http.MethodPost, "/graphql", "{}", append(foreign, "Accept", graphqlType)...); !strings.HasPrefix(got.Header.Get("Content-Type"), graphqlType) {
		t.Errorf("got %s", got.Header.Get("Content-Type"))
	}
}

// rawResponse is a response read from a TCP connection.
type rawResponse struct {
	*http.Response
	body string
}

// sendRaw sends bytes over a new connection and returns all responses until the server
// closes it or answered n requests.
func sendRaw(t *testing.T, address, text string, n int) (all []rawResponse) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	testutil.Must(t, err)
	defer func() { _ = conn.Close() }()
	testutil.Must(t, conn.SetDeadline(time.Now().Add(testutil.Timeout)))
	_, _ = io.WriteString(conn, text) // the server may reject the request before its end
	reader := bufio.NewReader(conn)
	for len(all) < n {
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			break
		}
		body, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		all = append(all, rawResponse{response, string(body)})
	}
	return all
}

// TestAmbiguousRequests sends requests that two programs could read differently over TCP.
// Each is rejected with 400 in the format of its API, and nothing happens.
func TestAmbiguousRequests(t *testing.T) {
	t.Parallel()
	b := newTestServer(t, nil)
	address, _ := b.listen(t)
	key := b.register(t, "")
	const graphqlBody, chunked = `{"query":"{ __typename }"}`, "Transfer-Encoding: chunked\r\n"
	apis := map[string]string{"/graphql": graphqlBody, "/api/tasks": `{"title":"T","description":"D","budget":2}`}
	length := func(body string) string { return "Content-Length: " + strconv.Itoa(len(body)) + "\r\n" }
	chunks := func(body string) string {
		return strconv.FormatInt(int64(len(body)), 16) + "\r\n" + body + "\r\n0\r\n\r\n"
	}
	for path, body := range apis {
		start := "POST " + path + " HTTP/1.1\r\nHost: market.example\r\n"
		withKey := start + "Content-Type: application/json\r\nX-API-Key: " + key + "\r\n"
		valid := map[string]string{
			"length":                withKey + length(body) + "\r\n" + body,
			"chunked":               withKey + chunked + "\r\n" + chunks(body),
			"chunked, small h":      withKey + "transfer-encoding: Chunked\r\n\r\n" + chunks(body),
			"the words in a header": withKey + "X-Note: Content-Length: 5\r\n" + chunked + "\r\n" + chunks(body),
			"absolute form":         strings.Replace(withKey, " /", " http://market.example/", 1) + length(body) + "\r\n" + body,
		}
		for name, text := range valid {
			got := sendRaw(t, address, text, 1)
			if len(got) != 1 || got[0].StatusCode != http.StatusOK {
				t.Errorf("%s, %s: got %v", path, name, got)
			}
		}
		if got := sendRaw(t, address, valid["chunked"]+"\r\n"+valid["length"], 2); len(got) != 2 || got[1].StatusCode != http.StatusOK {
			t.Errorf("%s, two requests on a connection: got %v", path, got)
		}
		before := b.do(t, http.MethodGet, "/api/wallet", "", "X-API-Key", key).body
		for name, text := range map[string]string{
			"length and chunked":       withKey + length(body) + chunked + "\r\n" + chunks(body),
			"chunked and length":       withKey + chunked + "content-length: 3\r\n\r\n" + chunks(body),
			"chunked with bare LF":     withKey + "Content-Length: 3\n" + chunked + "\r\n" + chunks(body),
			"two equal lengths":        withKey + length(body) + length(body) + "\r\n" + body,
			"two keys of idempotency":  withKey + "Idempotency-Key: a\r\nIdempotency-Key: b\r\n" + length(body) + "\r\n" + body,
			"the same one twice":       withKey + "Idempotency-Key: a\r\nidempotency-key: a\r\n" + length(body) + "\r\n" + body,
			"two API keys":             withKey + "X-API-Key: " + key + "\r\n" + length(body) + "\r\n" + body,
			"two of Authorization":     withKey + "Authorization: Bearer " + key + "\r\nAuthorization: Basic eDp5\r\n" + length(body) + "\r\n" + body,
			"two of Content-Type":      withKey + "Content-Type: text/plain\r\n" + length(body) + "\r\n" + body,
			"two of Content-Encoding":  withKey + "Content-Encoding: identity\r\nContent-Encoding: gzip\r\n" + length(body) + "\r\n" + body,
			"two of Origin":            withKey + "Origin: http://market.example\r\nOrigin: https://evil.example\r\n" + length(body) + "\r\n" + body,
			"an invalid chunk":         withKey + chunked + "\r\nzz\r\n" + body + "\r\n0\r\n\r\n",
			"a chunk without an end":   withKey + chunked + "\r\n" + strconv.FormatInt(int64(len(body)), 16) + "\r\n" + body + "x\r\n0\r\n\r\n",
			"a negative chunk":         withKey + chunked + "\r\n-1\r\n" + body + "\r\n0\r\n\r\n",
			"a chunk that is too long": withKey + chunked + "\r\nfffffffffffffffff\r\n" + body + "\r\n0\r\n\r\n",
		} {
			got := sendRaw(t, address, text+valid["length"], 2)
			if len(got) == 0 {
				t.Errorf("%s, %s: no response", path, name)
				continue
			}
			assertAPIError(t, name, path, got[0].StatusCode, got[0].body, models.InvalidInput, http.StatusBadRequest)
			if framed := strings.Contains(name, "chunk") || strings.Contains(name, "length"); framed && len(got) > 1 {
				t.Errorf("%s, %s: the connection stays open", path, name)
			}
			if !strings.Contains(name, "chunk") && !strings.Contains(name, "length") {
				before = b.do(t, http.MethodGet, "/api/wallet", "", "X-API-Key", key).body // the valid request that follows
			}
		}
		if after := b.do(t, http.MethodGet, "/api/wallet", "", "X-API-Key", key).body; after != before {
			t.Errorf("%s: a rejected request changed the wallet: %s, then %s", path, before, after)
		}
		// net/http rejects these itself, before it knows the path.
		for name, text := range map[string]string{
			"two lengths":                 withKey + length(body) + "Content-Length: 3\r\n\r\n" + body,
			"a list of lengths":           withKey + "Content-Length: 3, 3\r\n\r\n" + body,
			"a negative length":           withKey + "Content-Length: -3\r\n\r\n" + body,
			"a signed length":             withKey + "Content-Length: +3\r\n\r\n" + body,
			"an empty length":             withKey + "Content-Length:\r\n\r\n" + body,
			"two encodings":               withKey + chunked + chunked + "\r\n" + chunks(body),
			"an unknown encoding":         withKey + "Transfer-Encoding: gzip\r\n\r\n" + chunks(body),
			"a list of encodings":         withKey + "Transfer-Encoding: gzip, chunked\r\n\r\n" + chunks(body),
			"a space before the colon":    withKey + "Content-Length : 3\r\n\r\n" + body,
			"a space in the name":         withKey + "Transfer Encoding: chunked\r\n\r\n" + chunks(body),
			"no host":                     strings.Replace(withKey, "Host: market.example\r\n", "", 1) + length(body) + "\r\n" + body,
			"two hosts":                   withKey + "Host: other.example\r\n" + length(body) + "\r\n" + body,
			"a bad host":                  strings.Replace(withKey, "market.example", "market example", 1) + length(body) + "\r\n" + body,
			"a NUL in a header":           withKey + "X-Note: a\x00b\r\n" + length(body) + "\r\n" + body,
			"a line without a colon":      withKey + "nonsense\r\n" + length(body) + "\r\n" + body,
			"no version":                  "POST " + path + "\r\n\r\n",
			"headers that are too large":  withKey + "X-Note: " + strings.Repeat("a", 64<<10) + "\r\n\r\n",
			"a space in the request line": strings.Replace(withKey, " HTTP", " x HTTP", 1) + length(body) + "\r\n" + body,
		} {
			got := sendRaw(t, address, text+valid["length"], 2)
			if len(got) > 1 || len(got) == 1 && got[0].StatusCode < http.StatusBadRequest {
				t.Errorf("%s, %s: got %v", path, name, got)
			}
		}
		old := strings.Replace(withKey, "HTTP/1.1", "HTTP/1.0", 1) + length(body) + chunked + "\r\n" + body
		if got := sendRaw(t, address, old, 1); len(got) != 1 || got[0].StatusCode != http.StatusBadRequest {
			t.Errorf("%s, Transfer-Encoding in HTTP/1.0: got %v", path, got)
		}
	}
	if log := b.log.String(); strings.Contains(log, `"level":"ERROR"`) || strings.Contains(log, `"level":"WARN"`) {
		t.Errorf("logged %s", log)
	}
}

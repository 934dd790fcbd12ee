package webhooks_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"agentmarket.space/server/internal/test/e2e/testserver"
	"agentmarket.space/server/internal/test/testutil"
)

// TestRequest_documentedFormat checks the documented method, headers and body.
func TestRequest_documentedFormat(t *testing.T) {
	t.Parallel()
	receiver := startReceiver(t, nil)
	server := testserver.Start(t, append(receiver.env, "AGENTMARKET_MARKETPLACE_URL=https://agentmarket.space")...)
	agent := registerAgent(server, receiver.url+"/webhooks?of=bot", "research")
	task := server.PostTask(registerAgent(server, "").Key, "research", "summarization")
	d := receiver.next(t)

	if d.method != http.MethodPost || d.path != "/webhooks" {
		t.Errorf("got %s %s", d.method, d.path)
	}
	filled := strings.NewReplacer("task-uuid", task.ID, "2026-03-13T12:00:00Z", task.CreatedAt[:len("2026-03-13T12:00:00")]+"Z")
	var want bytes.Buffer
	if err := json.Compact(&want, []byte(filled.Replace(testutil.ReadFile(t, "testdata/documented.json")))); err != nil {
		t.Fatal(err)
	}
	if d.body != want.String() {
		t.Errorf("the body is\n%s\nwant\n%s", d.body, want.String())
	}
	id := waitForOutcome(t, server, agent.Key, task).ID
	for name, value := range map[string]string{
		"Content-Type":            "application/json",
		"X-AgentMarket-Event":     "task.posted",
		"X-AgentMarket-Signature": "sha256=" + hmacHex(agent.WebhookSecret, d.body),
		"X-AgentMarket-Delivery":  id,
		"X-AgentMarket-Attempt":   "1",
		"X-AgentMarket-Timestamp": d.header.Get("webhook-timestamp"),
		"webhook-id":              id,
	} {
		if got := d.header.Values(name); !slices.Equal(got, []string{value}) {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
	const known = "Accept-Encoding Content-Length Content-Type User-Agent Webhook-Id Webhook-Signature Webhook-Timestamp " +
		"X-Agentmarket-Attempt X-Agentmarket-Delivery X-Agentmarket-Event X-Agentmarket-Signature X-Agentmarket-Timestamp"
	for name := range d.header {
		if !slices.Contains(strings.Fields(known), name) {
			t.Errorf("undocumented header %s: %q", name, d.header[name])
		}
	}
}

// signedRequest is the input of a verifier.
type signedRequest struct {
	Body   string            `json:"body"`
	Header map[string]string `json:"header"`
	Secret string            `json:"secret"`
}

// TestSignature: the documented verifiers and standard libraries accept a delivery and
// reject forgeries.
func TestSignature(t *testing.T) {
	t.Parallel()
	receiver := startReceiver(t, nil)
	server := testserver.Start(t, receiver.env...)
	agent := registerAgent(server, receiver.url, "research")
	other := registerAgent(server, receiver.url, "drawing")
	server.PostTask(registerAgent(server, "").Key, "research")
	d := receiver.next(t)

	genuine := signedRequest{d.body, map[string]string{}, agent.WebhookSecret}
	for name := range d.header {
		genuine.Header[name] = d.header.Get(name)
	}
	const documented, standard = "X-Agentmarket-Signature", "Webhook-Signature"
	resign := func(r *signedRequest, change func(string) string) {
		r.Header = maps.Clone(r.Header)
		r.Header[documented], r.Header[standard] = change(r.Header[documented]), change(r.Header[standard])
	}
	forged := map[string]func(*signedRequest){
		"another body":        func(r *signedRequest) { r.Body = strings.Replace(r.Body, "25", "26", 1) },
		"a longer body":       func(r *signedRequest) { r.Body += " " },
		"another's secret":    func(r *signedRequest) { r.Secret = other.WebhookSecret },
		"a cut signature":     func(r *signedRequest) { resign(r, func(s string) string { return s[:len(s)-2] }) },
		"another signature":   func(r *signedRequest) { resign(r, alterSignature) },
		"no signature at all": func(r *signedRequest) { resign(r, func(string) string { return "" }) },
	}
	names := slices.Sorted(maps.Keys(forged))
	requests := []signedRequest{genuine}
	for _, name := range names {
		r := genuine
		forged[name](&r)
		requests = append(requests, r)
	}

	for verifier, verify := range verifiers() {
		t.Run(verifier, func(t *testing.T) {
			t.Parallel()
			verdicts := verify(t, requests)
			if len(verdicts) != len(requests) || !verdicts[0] {
				t.Fatalf("of %d requests, of which the first is valid, it accepts %v", len(requests), verdicts)
			}
			for i, name := range names {
				if verdicts[i+1] {
					t.Errorf("%s is accepted", name)
				}
			}
		})
	}
}

// alterSignature changes one hex digit or base64 letter near the end of a signature.
func alterSignature(s string) string {
	at := len(s) - 3
	other := "0"
	if s[at] == '0' {
		other = "1"
	}
	return s[:at] + other + s[at+1:]
}

// verifiers are the ways to verify signatures. Each reports which of the requests it
// accepts.
func verifiers() map[string]func(*testing.T, []signedRequest) []bool {
	return map[string]func(*testing.T, []signedRequest) []bool{
		"as documented, in Node": func(t *testing.T, requests []signedRequest) []bool {
			t.Helper()
			above, handler, found := strings.Cut(testutil.ReadFile(t, "testdata/documented.mjs"), "// In your handler:\n")
			if !found {
				t.Fatal("the documented example has no handler")
			}
			return verifyInNode(t, above+"async function answer(request) {\n"+handler+"return payload;\n}\n"+
				"const handle = async (request) => (await answer(request)).event === 'task.posted';\n", requests)
		},
		"as in README.md, in Node": func(t *testing.T, requests []signedRequest) []bool {
			t.Helper()
			return verifyInNode(t, testutil.CodeBlock(t, "../../../../README.md", "Verify a webhook", "js")+"const handle = async (request) => "+
				"verify(await request.text(), process.env.WEBHOOK_SECRET, request.headers.get('X-AgentMarket-Signature'));\n", requests)
		},
		"in Go": verifyEach(func(r signedRequest) bool {
			return hmac.Equal([]byte(r.Header["X-Agentmarket-Signature"]), []byte("sha256="+hmacHex(r.Secret, r.Body)))
		}),
		"with the Standard Webhooks library": verifyEach(func(r signedRequest) bool {
			header := http.Header{}
			for name, value := range r.Header {
				header.Set(name, value)
			}
			library, err := standardwebhooks.NewWebhook(r.Secret)
			return err == nil && library.Verify([]byte(r.Body), header) == nil
		}),
	}
}

func verifyEach(verify func(signedRequest) bool) func(*testing.T, []signedRequest) []bool {
	return func(_ *testing.T, requests []signedRequest) (verdicts []bool) {
		for _, r := range requests {
			verdicts = append(verdicts, verify(r))
		}
		return verdicts
	}
}

func hmacHex(secret, body string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	return hex.EncodeToString(mac.Sum(nil))
}

// verifyInNode runs a module whose function handle verifies the requests.
func verifyInNode(t *testing.T, module string, requests []signedRequest) (verdicts []bool) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "verify.mjs")
	if err := os.WriteFile(file, []byte(module+testutil.ReadFile(t, "testdata/verify.mjs")), 0o600); err != nil {
		t.Fatal(err)
	}
	given, err := json.Marshal(requests)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), testserver.RequireTool(t, "node"), file)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(given), os.Stderr
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &verdicts)
	}
	if err != nil {
		t.Fatalf("node: %v\n%s", err, out)
	}
	return verdicts
}

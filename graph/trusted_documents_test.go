package graph

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"agentmarket.space/server/internal/outbound"
	"agentmarket.space/server/internal/test/testutil"
)

func sha256Hex(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// readManifest reads a manifest.
func readManifest(t *testing.T, manifest string) (*TrustedDocuments, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "documents.json")
	testutil.Must(t, os.WriteFile(path, []byte(manifest), 0o600))
	return ReadTrustedDocuments(path)
}

// TestTrustedDocuments checks that a server with a list runs only its documents, over every
// transport and by any id, and that clients cannot add to it.
func TestTrustedDocuments(t *testing.T) {
	t.Parallel()
	const listed, mutation, unlisted = `{ marketplace { version } }`, `mutation { rotateApiKey { apiKey } }`, `{ marketplace { url } }`
	trusted, err := readManifest(t, fmt.Sprintf(`{%q: %q, %q: %q, "a-name-of-ours": %q}`, sha256Hex(listed), listed, sha256Hex(mutation), mutation, listed))
	testutil.Must(t, err)
	b := newBundleWith(t, ServerOptions{Introspection: true, TrustedDocuments: trusted}, outbound.Options{})
	post := func(body string) gqlResponse {
		return b.send(t, caller{}, http.MethodPost, "", []byte(body), "Content-Type", "application/json")
	}
	for range 2 { // from the cache too
		for _, body := range []string{
			fmt.Sprintf(`{"query": %q}`, listed),
			fmt.Sprintf(`{"documentId": "sha256:%s"}`, sha256Hex(listed)),
			fmt.Sprintf(`{"documentId": %q}`, strings.ToUpper(sha256Hex(listed))),
			`{"documentId": "a-name-of-ours"}`,
			fmt.Sprintf(`{"extensions": {"persistedQuery": {"version": 1, "sha256Hash": %q}}}`, sha256Hex(listed)),
		} {
			post(body).assertFields(t, "marketplace.version", "1.2.3")
		}
		b.send(t, caller{}, http.MethodGet, "?documentId=sha256:"+sha256Hex(listed), nil).assertFields(t, "marketplace.version", "1.2.3")
		for body, code := range map[string]string{
			fmt.Sprintf(`{"query": %q}`, unlisted):                          codeTextNotListed,
			fmt.Sprintf(`{"query": %q}`, listed+" "):                        codeTextNotListed,
			`{"query": "{ __schema { queryType { name } } }"}`:              codeTextNotListed,
			fmt.Sprintf(`{"documentId": "sha256:%s"}`, sha256Hex(unlisted)): codeIDNotListed,
			fmt.Sprintf(`{"query": %q, "documentId": "x"}`, listed):         "INVALID_INPUT",
			`{"extensions": {"persistedQuery": {"version": 1}}}`:            codeIDNotListed,
			`{"extensions": {"persistedQuery": "text"}}`:                    codeIDNotListed,
			fmt.Sprintf(`{"query": %q, "extensions": {"persistedQuery": {"version": 1, "sha256Hash": %q}}}`, unlisted, sha256Hex(unlisted)): codeTextNotListed,
		} {
			if got := post(body); got.code() != code || got.Data != nil {
				t.Errorf("%s: answered %v with %v, want %s", body, got.Data, got.Errors, code)
			}
		}
		if got := b.send(t, caller{}, http.MethodGet, "?query="+url.QueryEscape(unlisted), nil); got.code() != codeTextNotListed {
			t.Errorf("by GET: %v", got)
		}
	}
	for name, open := range subscribeFuncs() {
		first, done := open(b, t, caller{}, listed).next()
		if done || first.get(t, "marketplace.version") != "1.2.3" {
			t.Errorf("over %s the listed document gets %v", name, first)
		}
	}
	if first, _ := b.subscribeWebSocket(t, caller{}, unlisted).next(); first.code() != codeTextNotListed {
		t.Errorf("over a socket: %v", first)
	}
	body := fmt.Appendf(nil, `{"query": %q}`, unlisted)
	if got := b.send(t, caller{}, http.MethodPost, "", body, "Content-Type", "application/json", "Accept", "text/event-stream"); got.code() != codeTextNotListed {
		t.Errorf("over an event stream: %v", got)
	}
}

// TestReadTrustedDocuments reads the manifests of tools, and checks the errors of others.
func TestReadTrustedDocuments(t *testing.T) {
	t.Parallel()
	const document = `query Q { marketplace { url } }`
	for _, manifest := range []string{
		fmt.Sprintf(`{%q: %q}`, sha256Hex(document), document),
		fmt.Sprintf(`{%q: %q}`, "sha256:"+sha256Hex(document), document),
		fmt.Sprintf(`{"0123456789abcdef0123456789abcdef": %q}`, document), // Relay's MD5
		fmt.Sprintf(`{"format": "apollo-persisted-query-manifest", "version": 1, "operations": [{"id": %q, "name": "Q", "type": "query", "body": %q}]}`, sha256Hex(document), document),
	} {
		if trusted, err := readManifest(t, manifest); err != nil || !trusted.texts[document] || len(trusted.byID) != 1 {
			t.Errorf("%s: got %v, %v", manifest, trusted, err)
		}
	}
	trusted, err := readManifest(t, `{"aB": "{ a }", "Ab": "{ b }"}`)
	testutil.Must(t, err)
	if trusted.byID["aB"] != "{ a }" || trusted.byID["Ab"] != "{ b }" {
		t.Errorf("ids that differ in case are mixed up: %v", trusted.byID)
	}
	for manifest, says := range map[string]string{
		``:                       "want a JSON object",
		`[]`:                     "want a JSON object",
		`{"id": 7}`:              "want a JSON object",
		`{}`:                     "the manifest has no documents",
		`{"id": "{ unfinished"}`: `document "id" cannot be parsed`,
		fmt.Sprintf(`{%q: %q}`, sha256Hex("another"), document):                                                                     "does not have the SHA-256",
		fmt.Sprintf(`{%q: %q}`, "sha256:"+sha256Hex("another"), document):                                                           "does not have the SHA-256",
		`{"format": "apollo-persisted-query-manifest", "operations": [{"id": "a", "body": "{ a }"}, {"id": "a", "body": "{ b }"}]}`: `two documents have the id "a"`,
		`{"format": "apollo-persisted-query-manifest", "operations": []}`:                                                           "the manifest has no documents",
	} {
		if _, err := readManifest(t, manifest); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want %q", manifest, err, says)
		}
	}
	if _, err := ReadTrustedDocuments(filepath.Join(t.TempDir(), "missing.json")); err == nil {
		t.Error("a missing manifest is read")
	}
}

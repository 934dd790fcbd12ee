package explorer_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"agentmarket.space/server/graph/explorer"
)

const key = "key-typed-by-the-test"

// TestInBrowser opens the page in Chromium as a person would: types a key, runs a
// query, watches a subscription, reads the documentation. Names other than the
// test server's do not resolve, so whatever the page needs must come from us.
func TestInBrowser(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.Handle(explorer.Path, explorer.Handler("/graphql"))
	mux.Handle(explorer.Path+"/", explorer.Handler("/graphql"))
	mux.HandleFunc("/graphql", stubGraphQL(t))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	page := openChromium(t, server.URL+explorer.Path)

	const (
		editor = `document.querySelector('.graphiql-query-editor .CodeMirror').CodeMirror`
		shown  = `document.querySelector('.result-window .CodeMirror').CodeMirror.getValue()`
	)
	run := func(operation string) {
		page.evaluate(editor + `.setValue('` + operation + `'), ` + editor + `.focus()`)
		page.waitFor(editor + `.documentAST?.loc.source.body === ` + editor + `.getValue()`) // it has read it
		ctrlEnter := map[string]any{"type": "rawKeyDown", "modifiers": 2, "key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
		page.call("Input.dispatchKeyEvent", ctrlEnter, nil)
	}

	page.waitFor(`document.querySelector('.graphiql-query-editor .CodeMirror')?.CodeMirror.getValue().includes('mutation Register')`)

	page.evaluate(`document.getElementById('api-key').focus()`)
	page.call("Input.insertText", map[string]any{"text": key}, nil)

	run(`{ keySeen }`)
	page.waitFor(shown + `.includes('"keySeen": "POST ` + key + `"')`)

	run(`subscription { keySeen }`)
	page.waitFor(shown + `.includes('"keySeen": "graphql-transport-ws ` + key + `"')`)

	page.evaluate(`document.querySelector('[aria-label="Show Documentation Explorer"]').click()`)
	page.waitFor(`document.querySelector('.graphiql-doc-explorer')?.innerText.includes('Subscription')`)

	page.evaluate(`document.querySelector('[aria-label="Open settings dialog"]').click()`)
	page.waitFor(`document.querySelector('.graphiql-dialog')`)

	const background = `getComputedStyle(document.getElementById('api-key')).backgroundColor`
	light := page.evaluate(background)
	dark := map[string]any{"features": []any{map[string]any{"name": "prefers-color-scheme", "value": "dark"}}}
	page.call("Emulation.setEmulatedMedia", dark, nil)
	page.waitFor(background + ` !== '` + light + `'`)

	if kept := page.evaluate(`JSON.stringify({...sessionStorage})`); !strings.Contains(kept, key) {
		t.Errorf("the key is not kept for the tab: sessionStorage is %s", kept)
	}
	if kept := page.evaluate(`JSON.stringify({...localStorage})`); strings.Contains(kept, key) {
		t.Errorf("the key outlives the tab: localStorage is %s", kept)
	}

	requests, complaints := page.seen()
	for _, address := range requests {
		ours := strings.HasPrefix(address, server.URL+"/") || strings.HasPrefix(address, strings.Replace(server.URL, "http", "ws", 1)+"/")
		if !ours && !strings.HasPrefix(address, "data:") {
			t.Errorf("the page asked for %s", address)
		}
	}
	for _, library := range []string{"/explorer/graphiql.js", "/explorer/react-dom.js", "/graphql"} {
		if !strings.Contains(strings.Join(requests, "\n"), server.URL+library) {
			t.Errorf("%s was never asked for; the requests were %v", library, requests)
		}
	}
	for _, complaint := range complaints {
		t.Errorf("the browser complained: %s", complaint)
	}
}

// stubGraphQL answers every query with the key it came with, over HTTP once and
// over graphql-transport-ws as a stream of one.
func stubGraphQL(t *testing.T) http.HandlerFunc {
	t.Helper()
	introspection, err := os.ReadFile("testdata/introspection.json")
	if err != nil {
		t.Fatal(err)
	}
	upgrader := websocket.Upgrader{Subprotocols: []string{"graphql-transport-ws"}}
	return func(w http.ResponseWriter, r *http.Request) {
		if !websocket.IsWebSocketUpgrade(r) {
			var operation struct{ OperationName string }
			if err := json.NewDecoder(r.Body).Decode(&operation); err != nil {
				t.Errorf("decode the operation: %v", err)
			}
			w.Header().Set("Content-Type", "application/graphql-response+json")
			answer := introspection
			if operation.OperationName != "IntrospectionQuery" {
				answer = []byte(`{"data": {"keySeen": "` + r.Method + " " + r.Header.Get("X-API-Key") + `"}}`)
			}
			if _, err := w.Write(answer); err != nil {
				t.Errorf("answer: %v", err)
			}
			return
		}
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			t.Errorf("upgrade: %v", err)
			return
		}
		defer func() { _ = conn.Close() }()
		keySeen := ""
		for {
			var message struct {
				ID, Type string
				Payload  map[string]any
			}
			if err := conn.ReadJSON(&message); err != nil {
				return // the page closed the socket
			}
			var replies []map[string]any
			switch message.Type {
			case "connection_init":
				keySeen, _ = message.Payload["X-API-Key"].(string)
				replies = []map[string]any{{"type": "connection_ack"}}
			case "subscribe":
				data := map[string]any{"keySeen": conn.Subprotocol() + " " + keySeen}
				replies = []map[string]any{
					{"id": message.ID, "type": "next", "payload": map[string]any{"data": data}},
					{"id": message.ID, "type": "complete"},
				}
			}
			for _, reply := range replies {
				if err := conn.WriteJSON(reply); err != nil {
					t.Errorf("reply on the socket: %v", err)
				}
			}
		}
	}
}
